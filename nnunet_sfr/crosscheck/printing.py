"""What ``sfr_crosscheck`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from nnunet_sfr.crosscheck.findings import Findings, SourceFindings
from nnunet_sfr.crosscheck.sources import NNUNET, SOURCES
from nnunet_sfr.wording import aligned

SHOWN_CASES = 3
"""Worst cases that are named."""
SHOWN_MEASURES = 3
"""Measures of confidence whose rank correlation is named."""


def lines(findings: Findings) -> Iterator[str]:
    """Dice of every class by source, differences, worst cases, measures of confidence, and the verdict last."""
    yield f"Dice in {findings.sam.dice.n} labelled cases, each left out once (mean, 95 % interval)"
    yield from (f"  {row}" for row in aligned(_table(findings)))
    for difference in findings.differences:
        yield (f"{SOURCES[difference.source]} minus {SOURCES[difference.other]}, paired by case: {difference.dice}")
    worst = ", ".join(f"{case.case} {case.dice:.3f}" for case in findings.sam.cases[:SHOWN_CASES])
    yield f"lowest of SAM: {worst}"
    for source, finding in findings.sources.items():
        best = _best_measures(finding)
        if best:
            yield f"rank correlation of confidence with Dice, {SOURCES[source]}: {', '.join(best)}"
    yield _expected(findings)
    yield findings.verdict


def source_name(source: str, nnunet_iterations: int | None) -> str:
    """Name of a source in a heading.

    Args:
        source: a key of :data:`nnunet_sfr.crosscheck.sources.SOURCES`.
        nnunet_iterations: of nnU-Net, which are told with its name.
    """
    return f"{SOURCES[source]}, {nnunet_iterations} iterations" if source == NNUNET else SOURCES[source]


def _expected(findings: Findings) -> str:
    if findings.expected is not None:
        return f"expected Dice in the {findings.num_unlabelled} unlabelled cases: {findings.expected:.2f}"
    not_estimated = "the Dice of the unlabelled cases is not estimated"
    if findings.num_unlabelled == 0:
        return f"{not_estimated}: run sfr_finetune and sfr_pseudolabel first"
    return (
        f"{not_estimated}: SAM found nothing in the cases left out or in the pool, or agreement under flips was not "
        "measured (pseudo_labels.measure_flip_agreement)"
    )


def _table(findings: Findings) -> list[list[str]]:
    """One row a class and one for the mean of the cases, one column a source."""
    sources = findings.sources
    rows = [["", *(source_name(source, findings.nnunet_iterations) for source in sources), "cases", "not found by SAM"]]
    for label, of_sam in findings.sam.classes.items():
        dices = [str(finding.classes[label].dice) for finding in sources.values()]
        rows.append([of_sam.name, *dices, str(of_sam.dice.n), str(of_sam.missed)])
    means = [str(finding.dice) for finding in sources.values()]
    return [*rows, ["mean of the cases", *means, str(findings.sam.dice.n), ""]]


def _best_measures(finding: SourceFindings) -> list[str]:
    ranked = [(measure.rank_correlation, name) for name, measure in finding.measures.items()]
    known = sorted(((value, name) for value, name in ranked if value is not None), reverse=True)
    return [f"{name} {value:.2f}" for value, name in known[:SHOWN_MEASURES]]
