"""What the cases that were left out say about the labels of the unlabelled ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.crosscheck.estimate import Estimate
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM, LeftOutCase
from nnunet_sfr.crosscheck.verdict import verdict_of_comparison, verdict_of_sam
from nnunet_sfr.json_files import Shape

ESTIMATOR = "flip_agreement"
"""The measure by which the Dice of the unlabelled cases is estimated."""
COMPARED = ((SAM, NNUNET), (MEAN, SAM), (MEAN, NNUNET))
"""Pairs of sources whose difference is given."""

LABELLED_CASES = "labelled_cases"
"""In the file beside the findings: which cases they come from, by identifier what identifies each."""

_ESTIMATE: Shape = {"n": int, "mean": float | None, "low": float | None, "high": float | None}
SHAPE: Shape = {
    "sources": {
        ...: {
            "classes": {...: {"name": str, "dice": _ESTIMATE, "missed": int}},
            "dice": _ESTIMATE,
            "cases": [{"case": str, "fold": int, "dice": float, "classes": {...: float | None}}],
            "measures": {
                ...: {
                    "rank_correlation": float | None,
                    "points": [{"case": str, "confidence": float, "dice": float}],
                }
            },
        }
    },
    "differences": [{"source": str, "other": str, "dice": _ESTIMATE, "classes": {...: _ESTIMATE}}],
    "nnunet_iterations": int | None,
    "expected": float | None,
    "num_unlabelled": int,
    "verdict": str,
    f"{LABELLED_CASES}?": {...: str},
}
"""Of :meth:`Findings.to_json` in a file; earlier versions did not record the labelled cases."""


@dataclass(frozen=True)
class ClassFinding:
    """One class over the cases that were left out.

    Args:
        name: of the class.
        dice: over the cases in which either map has it.
        missed: cases that have the class, in which the source found none of it.
    """

    name: str
    dice: Estimate
    missed: int


@dataclass(frozen=True)
class CaseFinding:
    """One case that was left out.

    Args:
        case: identifier.
        fold: that left it out.
        dice: mean over its classes.
        classes: Dice by label value, as text; None where neither map has the class.
    """

    case: str
    fold: int
    dice: float
    classes: dict[str, float | None]


@dataclass(frozen=True)
class CalibrationPoint:
    """A case's confidence beside its true Dice, the mean over its classes."""

    case: str
    confidence: float
    dice: float


@dataclass(frozen=True)
class MeasureFinding:
    """How well one measure of confidence tells good labels from bad ones.

    Args:
        rank_correlation: Spearman's, with the mean Dice of a case; None for fewer than three cases.
        points: the calibration curve, sorted by confidence.
    """

    rank_correlation: float | None
    points: list[CalibrationPoint]


@dataclass(frozen=True)
class SourceFindings:
    """Everything about the labels of one source.

    Args:
        classes: by label value, as text.
        dice: of the cases' mean over their classes.
        cases: worst first.
        measures: by name.
    """

    classes: dict[str, ClassFinding]
    dice: Estimate
    cases: list[CaseFinding]
    measures: dict[str, MeasureFinding]


@dataclass(frozen=True)
class Difference:
    """One source minus another, over the cases that both have a value of.

    Args:
        source: a key of :data:`nnunet_sfr.crosscheck.sources.SOURCES`.
        other: another one.
        dice: difference of the cases' mean over their classes.
        classes: by label value, as text.
    """

    source: str
    other: str
    dice: Estimate
    classes: dict[str, Estimate]


@dataclass(frozen=True)
class Findings:
    """Everything that ``sfr_crosscheck`` reports.

    Args:
        folds: number of fine-tunings.
        sources: by key of :data:`nnunet_sfr.crosscheck.sources.SOURCES`; SAM alone without nnU-Net.
        differences: of every pair in :data:`COMPARED`; none without nnU-Net.
        nnunet_iterations: optimiser steps of nnU-Net in each fold; None without it.
        expected: Dice to expect of SAM in the unlabelled cases, if it has labelled them; else None.
        num_unlabelled: cases that ``expected`` is about.
        verdict: in one line.
    """

    folds: int
    sources: dict[str, SourceFindings]
    differences: list[Difference]
    nnunet_iterations: int | None
    expected: float | None
    num_unlabelled: int
    verdict: str

    @property
    def sam(self) -> SourceFindings:
        return self.sources[SAM]

    def to_json(self) -> dict[str, Any]:
        """JSON types, by the names above."""
        return asdict(self)


def findings_of(
    found: Mapping[str, Sequence[LeftOutCase]],
    names: Mapping[str, str],
    unlabelled: Sequence[Mapping[str, Any]] = (),
    *,
    nnunet_iterations: int | None = None,
) -> Findings:
    """Bring together what was found in all folds.

    Args:
        found: the cases that were left out, by who labelled them; SAM's with a class in either map of at least one.
        names: of every foreground label value, which is given as text.
        unlabelled: confidence records of SAM's labels of the unlabelled cases.
        nnunet_iterations: optimiser steps of nnU-Net, if it is among the sources.

    Raises:
        ValueError: no case has any class.
    """
    if all(case.mean_dice is None for case in found[SAM]):
        raise ValueError("none of the cases that were left out has any foreground, and SAM found none")
    sources = {source: _of_source(cases, names) for source, cases in found.items()}
    differences = [
        _difference(one, other, found, list(names)) for one, other in COMPARED if one in found and other in found
    ]
    expected = expected_dice_of_unlabelled(found[SAM], unlabelled)
    sam = sources[SAM].dice
    if nnunet_iterations is not None:
        verdict = verdict_of_comparison(
            {source: finding.dice for source, finding in sources.items()},
            {(one.source, one.other): one.dice for one in differences},
            nnunet_iterations,
        )
    else:
        verdict = verdict_of_sam(sam.value if expected is None else expected, sam.n)
    return Findings(
        folds=len({case.fold for case in found[SAM]}),
        sources=sources,
        differences=differences,
        nnunet_iterations=nnunet_iterations,
        expected=expected,
        num_unlabelled=len(unlabelled),
        verdict=verdict,
    )


def expected_dice_of_unlabelled(cases: Sequence[LeftOutCase], unlabelled: Sequence[Mapping[str, Any]]) -> float | None:
    """The Dice to expect in unlabelled cases: mean Dice of the cases that were left out, plus the difference between
    the two groups in :data:`ESTIMATOR`.

    This is a regression with a slope of 1, which a few cases can carry; agreement under flips is a Dice itself.

    Args:
        cases: that were left out.
        unlabelled: confidence records.

    Returns:
        between 0 and 1; None if a group has no case with the measure.
    """
    value = MEASURES[ESTIMATOR].value
    pairs = [(value(case.record), case.mean_dice) for case in cases]
    left_out = [(measure, dice) for measure, dice in pairs if measure is not None and dice is not None]
    of_unlabelled = [measure for measure in map(value, unlabelled) if measure is not None]
    if not left_out or not of_unlabelled:
        return None
    measures, dices = zip(*left_out, strict=True)
    return float(np.clip(np.mean(dices) + np.mean(of_unlabelled) - np.mean(measures), 0.0, 1.0))


def _of_source(cases: Sequence[LeftOutCase], names: Mapping[str, str]) -> SourceFindings:
    findings = [
        CaseFinding(case.identifier, case.fold, dice, dict(case.dice))
        for case in cases
        if (dice := case.mean_dice) is not None
    ]
    return SourceFindings(
        classes={label: _of_class(cases, label, name) for label, name in names.items()},
        dice=Estimate.of([case.dice for case in findings]),
        cases=sorted(findings, key=lambda case: (case.dice, case.case)),
        measures={name: finding for name in MEASURES if (finding := _of_measure(cases, name)) is not None},
    )


def _of_class(cases: Sequence[LeftOutCase], label: str, name: str) -> ClassFinding:
    missed = sum(case.dice.get(label) == 0 and not case.record["class_voxels"].get(label) for case in cases)
    return ClassFinding(
        name, Estimate.of([value for case in cases if (value := case.dice.get(label)) is not None]), missed
    )


def _difference(source: str, other: str, found: Mapping[str, Sequence[LeftOutCase]], labels: list[str]) -> Difference:
    theirs = {case.identifier: case for case in found[other]}
    pairs = [(case, theirs[case.identifier]) for case in found[source]]
    return Difference(
        source,
        other,
        Estimate.of(_differences((one.mean_dice, two.mean_dice) for one, two in pairs)),
        {
            label: Estimate.of(_differences((one.dice.get(label), two.dice.get(label)) for one, two in pairs))
            for label in labels
        },
    )


def _differences(pairs: Iterable[tuple[float | None, float | None]]) -> list[float]:
    """Of the pairs of which both are known."""
    return [one - other for one, other in pairs if one is not None and other is not None]


def _of_measure(cases: Sequence[LeftOutCase], name: str) -> MeasureFinding | None:
    values = MEASURES[name].values({case.identifier: case.record for case in cases})
    known = [(case.identifier, values[case.identifier], case.mean_dice) for case in cases]
    points = [
        CalibrationPoint(case, confidence, dice)
        for case, confidence, dice in known
        if confidence is not None and dice is not None
    ]
    if not points:
        return None
    points.sort(key=lambda point: (point.confidence, point.dice))
    confidences, dices = ([getattr(point, which) for point in points] for which in ("confidence", "dice"))
    varies = len(points) >= 3 and len(set(confidences)) > 1 and len(set(dices)) > 1
    return MeasureFinding(float(stats.spearmanr(confidences, dices).statistic) if varies else None, points)
