"""The whole of ``sfr_crosscheck``: every fold, what was found, and what is printed of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nnunet_sfr.atomic import write_json
from nnunet_sfr.crosscheck.findings import Findings, summarise
from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.crosscheck.left_out import LeftOutCase, label_left_out
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError

SHOWN_CASES = 3
"""Worst cases that are named."""


def crosscheck(dataset: SFRDataset, device: torch.device, *, overwrite: bool = False) -> Findings:
    """Leave every labelled case out of SAM's fine-tuning once, label it and compare; interrupted, it continues.

    The embedded views of the labelled cases are those of ``sfr_finetune``, so that a frozen encoder does not run again.

    Args:
        dataset: planned and preprocessed, with at least two labelled cases.
        device: to compute on.
        overwrite: fine-tune again.

    Raises:
        UserError: there are too few cases, or fine-tuning or labelling cannot be done.
    """
    folds = with_crosscheck_folds(dataset)
    assert folds.splits is not None
    cases: list[LeftOutCase] = []
    for fold, (training, left_out) in enumerate(folds.splits):
        without = ", ".join(left_out)
        print(f"fold {fold + 1} of {len(folds.splits)}: {len(training)} cases to learn from, without {without}")
        cases += label_left_out(folds, fold, device, overwrite=overwrite)
    try:
        findings = summarise(cases, dataset.class_names, _records_of_unlabelled(dataset))
    except ValueError as error:
        raise UserError(f"{dataset.paths.labelled}: {error}") from None
    write_json(findings.to_json(), dataset.paths.crosscheck_result)
    return findings


def _records_of_unlabelled(dataset: SFRDataset) -> list[dict[str, object]]:
    """Of SAM's labels for fold ``all``, as far as they are there."""
    store = PseudoLabelStore.open_if_there(dataset.paths.pseudo_labels("all"), grid=dataset.grid)
    if store is None or not store.made_by.is_sam:
        return []
    return [store.read_confidence(case) for case in store.identifiers()]


def lines(findings: Findings) -> Iterator[str]:
    """What is printed: classes, worst cases, measures of confidence, and the verdict last."""
    yield f"Dice of SAM's labels in {len(findings.cases)} labelled cases that it had not learned from"
    for found in findings.classes.values():
        if found.mean is None:
            yield f"  {found.name}: in none of the cases"
            continue
        missed = f", not found in {found.missed}" if found.missed else ""
        yield f"  {found.name}: {found.mean:.3f}{_between(found.low, found.high)}, {found.n} cases{missed}"
    yield f"  mean of the cases: {findings.mean:.3f}{_between(findings.low, findings.high)}"
    worst = ", ".join(f"{case} {dice:.3f}" for case, dice in findings.cases[:SHOWN_CASES])
    yield f"lowest: {worst}"
    ranked = {name: found.rank_correlation for name, found in findings.measures.items()}
    best = sorted(((value, name) for name, value in ranked.items() if value is not None), reverse=True)
    if best:
        yield "rank correlation of confidence with Dice: " + ", ".join(
            f"{name} {value:.2f}" for value, name in best[:3]
        )
    if findings.expected is not None:
        yield f"expected Dice in the {findings.num_unlabelled} unlabelled cases: {findings.expected:.2f}"
    else:
        yield "the Dice of the unlabelled cases is not estimated: run sfr_finetune and sfr_pseudolabel first"
    yield findings.verdict


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
