"""Which cases are reviewed, in which order, and by whom they were labelled; no volume is read for it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_sfr.data.preprocessed_files import read_properties, unlabelled_identifiers
from nnunet_sfr.data.store_files import record_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.paths import Fold
from nnunet_sfr.report import volumes
from nnunet_sfr.report.annotation import ANNOTATE_NEXT, Candidate, RankedCase, rank_cases
from nnunet_sfr.report.label_sources import LabelSource, Pool, read_pool

MOST_RANKED = 100
"""The ranking compares every case with every one taken before; behind so many the order is by confidence alone."""


@dataclass(frozen=True)
class ListedCase:
    """One case of the list.

    Args:
        name: identifier.
        reasons: why it is where it is, a few words each.
        confidence: of the labels that come first in ``sources``; None without.
        sources: keys of the label maps that there are.
    """

    name: str
    reasons: tuple[str, ...]
    confidence: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What there is to review.

    Args:
        cases: the most worth a look first.
        sources: the label maps that the page shows, those to start from first.
        properties: of every case, as nnU-Net's preprocessing recorded them.
        problems: what of the stores cannot be shown, one sentence each.
    """

    cases: Sequence[ListedCase]
    sources: Sequence[LabelSource]
    properties: Mapping[str, Mapping[str, Any]]
    problems: Sequence[str]


def list_for_review(dataset: SFRDataset, fold: Fold) -> Listing:
    """List the unlabelled cases of a data set.

    The order is that of the list of cases to annotate that ``sfr_report`` wrote, if none of the labels is newer; the
    rest, or all, is ranked by the same rule from what is recorded, without the likeness of images.

    Args:
        dataset: planned and preprocessed.
        fold: whose pseudo-labels are listed.

    Raises:
        UserError: there are no preprocessed unlabelled cases, or no pseudo-labels.
    """
    folder = dataset.paths.unlabelled
    identifiers = unlabelled_identifiers(folder)
    properties = {case: read_properties(folder, case) for case in identifiers}
    pool = read_pool(dataset, fold, properties)
    shown = _shown(pool)
    first = shown[0]
    order = _from_report(dataset.paths.report(fold) / ANNOTATE_NEXT, pool, set(first.records))
    ranked = _ranked(dataset, first, shown, properties, {choice.case for choice in order})
    names = [
        *order,
        *ranked,
        *(RankedCase(case, ["no pseudo-label"]) for case in identifiers if case not in first.records),
    ]
    cases = [
        ListedCase(
            choice.case,
            tuple(choice.reasons),
            first.confidence(choice.case) if choice.case in first.records else None,
            tuple(source.key for source in shown if choice.case in source.records),
        )
        for choice in names
    ]
    return Listing(cases, shown, properties, pool.problems)


def _shown(pool: Pool) -> list[LabelSource]:
    """The re-trained model's latest labels, SAM's latest, and where neither has any the latest of all."""
    found = [source for source in (pool.latest(sam=False), pool.latest(sam=True)) if source is not None]
    return found or [pool.sources[-1]]


def _from_report(file: Path, pool: Pool, known: set[str]) -> list[RankedCase]:
    """The list of ``sfr_report``; empty if there is none, or labels have come since."""
    if not file.is_file():
        return []
    written = file.stat().st_mtime
    records = (record_file(source.store.folder, case) for source in pool.sources for case in source.records)
    if any(record.stat().st_mtime > written for record in records if record.exists()):
        return []
    with file.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("case") in known]
    return [RankedCase(row["case"], (row.get("reasons") or "").split("; ")) for row in rows]


def _ranked(
    dataset: SFRDataset,
    judge: LabelSource,
    shown: Sequence[LabelSource],
    properties: Mapping[str, Mapping[str, Any]],
    taken: set[str],
) -> list[RankedCase]:
    """The cases that are not taken, ranked by what the stores recorded."""
    measured = {
        case: volumes.volumes_ml(voxels, volumes.grid_spacing(dataset, properties[case]))
        for case, record in judge.records.items()
        if (voxels := record.get("class_voxels")) is not None
    }
    outliers = volumes.find_outliers(measured)
    candidates = [
        Candidate(
            case,
            judge.confidence(case),
            _disagreement(record),
            measured.get(case, {"1": 1.0}),  # sizes are not recorded: not known to be empty
            outliers.get(case, ()),
        )
        for case, record in sorted(judge.records.items())
        if case not in taken
    ]
    chosen = rank_cases(candidates, MOST_RANKED, dataset.class_names, judge.made_by.label if len(shown) > 1 else "")
    first = {choice.case for choice in chosen}
    rest = sorted(
        (one for one in candidates if one.case not in first),
        key=lambda one: (-1.0 if one.confidence is None else one.confidence, one.case),
    )
    return [*chosen, *(RankedCase(one.case) for one in rest)]


def _disagreement(record: Mapping[str, Any]) -> float | None:
    """Of the re-trained model with SAM, as the model's record has it; None where it was not compared."""
    agreement: float | None = record.get("sam_agreement")
    return None if agreement is None else 1.0 - agreement
