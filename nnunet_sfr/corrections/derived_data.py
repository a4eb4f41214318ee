"""What was made from the raw data and names the corrected cases: preprocessed cases, splits, pseudo-labels, selections.

Every function here can be called any number of times, and does what is still to be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr import nnunet_json
from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.preprocessing import copy_ground_truth, preprocess_new_labels
from nnunet_sfr.data.raw_cases import RawDataset
from nnunet_sfr.data.store_files import case_files
from nnunet_sfr.data.voxel_confidence import voxel_confidence_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import FOLDS_PATTERN, MANIFEST


def update_preprocessed(
    datasets: Sequence[SFRDataset], raw: RawDataset, cases: Sequence[str], *, processes: int
) -> None:
    """Preprocess the cases as labelled ones by the plans that there are, and remove what they were as unlabelled ones.

    Args:
        datasets: every planned configuration.
        raw: the listed data set, with the cases labelled.
        cases: their identifiers.
        processes: processes that preprocess in parallel.

    Raises:
        UserError: the disk is full, or a worker was killed.
    """
    # two configurations can share a folder; one that was planned with --no_pp has none
    folders = {dataset.paths.labelled: dataset for dataset in datasets if dataset.paths.unlabelled.is_dir()}
    for dataset in folders.values():
        preprocess_new_labels(cases, raw, dataset.paths, dataset.plans_manager, processes=processes)
    if folders:
        copy_ground_truth(raw, datasets[0].paths.preprocessed)


def add_to_splits(file: Path, cases: Sequence[str]) -> bool:
    """Let the cases join the training part of every fold; the validation parts stay comparable with earlier results.

    Args:
        file: ``splits_final.json``.
        cases: that are labelled now.

    Returns:
        Whether there are splits.
    """
    splits = splits_if_there(file)
    if splits is None:
        return False
    extended = [
        {**fold, "train": [*fold["train"], *(case for case in cases if _is_new(case, fold))]} for fold in splits
    ]
    if extended != splits:
        write_json(extended, file)
    return True


def _is_new(case: str, fold: dict[str, Any]) -> bool:
    return case not in fold["train"] and case not in fold["val"]


def splits_if_there(file: Path) -> list[dict[str, Any]] | None:
    """nnU-Net's folds; None where it has made none.

    Raises:
        UserError: the file is damaged.
    """
    return nnunet_json.read_splits(file) if file.is_file() else None


def remove_pseudo_labels(datasets: Sequence[SFRDataset], cases: Sequence[str]) -> list[Path]:
    """Remove the cases from every store, whoever filled it: they are no longer in the pool.

    Args:
        datasets: the data set with each of its SFR plans.
        cases: that are labelled now.

    Returns:
        The stores that there are.
    """
    # one that is being replaced or was set aside lies a folder lower, which is hidden
    stores = [
        manifest.parent
        for dataset in datasets
        for place in ("*", ".*/*")
        for manifest in _pool_files(dataset, f"{place}/{MANIFEST}")
    ]
    for store in stores:
        for case in cases:
            for file in (*case_files(store, case), voxel_confidence_file(store, case)):
                file.unlink(missing_ok=True)
    return stores


def remove_from_selections(datasets: Sequence[SFRDataset], cases: Sequence[str]) -> None:
    """Let the selections of SFR+'s rounds divide the pool as it is now.

    Args:
        datasets: the data set with each of its SFR plans.
        cases: that are labelled now.
    """
    for file, content in read_selections(datasets).items():
        left = _without(content, cases)
        if left != content:
            write_json(left, file)


def read_selections(datasets: Sequence[SFRDataset]) -> dict[Path, dict[str, Any]]:
    """The content of the selections of all rounds.

    Raises:
        UserError: one of them is damaged.
    """
    files = [file for dataset in datasets for file in _pool_files(dataset, "round_*_selection.json")]
    return {file: read_json(file, "run sfr_select for this round") for file in files}


def _without(selection: dict[str, Any], cases: Sequence[str]) -> dict[str, Any]:
    """A selection's content (:class:`nnunet_sfr.selection.Selection`) that does not name some cases."""

    def rest(identifiers: Sequence[str]) -> list[str]:
        return [identifier for identifier in identifiers if identifier not in cases]

    left = dict(selection)
    for side in ("high", "low"):
        left[side] = rest(selection.get(side, ()))
    left["values"] = {case: value for case, value in selection.get("values", {}).items() if case not in cases}
    left["overruled"] = {side: rest(names) for side, names in selection.get("overruled", {}).items()}
    return {key: value for key, value in left.items() if key in selection}


def _pool_files(dataset: SFRDataset, pattern: str) -> list[Path]:
    """Files below the folders of the folds, in which stores and selections of a configuration lie."""
    return sorted(dataset.paths.pseudo_labels_of_folds.glob(f"{FOLDS_PATTERN}/{pattern}"))
