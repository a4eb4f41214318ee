"""Which folds there can be: nnU-Net's five, or those of a ``splits_final.json``; without nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.nnunet_json import read_splits
from nnunet_sfr.paths import DatasetPaths, Fold

FOLDS = 5
"""Folds of nnU-Net's cross-validation."""


def splits_of(paths: DatasetPaths) -> tuple[Path, list[dict[str, Any]]] | None:
    """The file with the folds of a data set and its content; None where nnU-Net will make them.

    nnU-Net's planner copies a user's own from the raw data to the preprocessed ones.

    Raises:
        UserError: the file is damaged.
    """
    raw = [paths.raw_splits_file] if paths.raw_is_here() else []
    for file in (paths.splits_file, *raw):
        if file.is_file():
            return file, read_splits(file)
    return None


def require_same_folds(paths: DatasetPaths, *, with_added_cases: bool) -> None:
    """Refuse folds of the raw data that are not those beside the plan, which are the ones that are trained.

    Args:
        paths: of the data set.
        with_added_cases: whether the folds beside the plan may have further training cases, as ``sfr_add_labels`` gives
            them; nnU-Net's planner does not allow it.

    Raises:
        UserError: naming the fold that differs, or a file is damaged.
    """
    given, planned = paths.raw_splits_file, paths.splits_file
    if not paths.raw_is_here() or not given.is_file() or not planned.is_file():
        return
    folds = read_splits(planned)
    for number, fold in enumerate(read_splits(given)):
        if number >= len(folds) or not _is_same(fold, folds[number], with_added_cases=with_added_cases):
            raise UserError(
                f"{given}: its fold {number} is another one than in {planned}; copy the file with the right folds over "
                "the other one"
            )


def _is_same(given: dict[str, Any], planned: dict[str, Any], *, with_added_cases: bool) -> bool:
    training, planned_training = set(given["train"]), set(planned["train"])
    same = training <= planned_training if with_added_cases else training == planned_training
    return same and set(given["val"]) == set(planned["val"])


def check_fold(fold: Fold, num_labelled: int) -> None:
    """Refuse a fold that nnU-Net's rule cannot make: its five folds need at least five labelled cases.

    Args:
        fold: a number or ``all``.
        num_labelled: number of labelled cases.

    Raises:
        UserError: saying why not, and what to use instead.
    """
    if fold == "all":
        return
    if not isinstance(fold, int) or not 0 <= fold < FOLDS:
        raise UserError(f"fold {fold} does not exist; use a number from 0 to {FOLDS - 1}, or all")
    if num_labelled < FOLDS:
        raise UserError(
            f"fold {fold} cannot exist: {FOLDS}-fold cross-validation needs {FOLDS} labelled cases and there are "
            f"{num_labelled}; use -f all"
        )


def require_fold(paths: DatasetPaths, fold: Fold, num_labelled: int) -> None:
    """Refuse a fold that a data set cannot have.

    Args:
        paths: of the data set.
        fold: a number or ``all``.
        num_labelled: number of labelled cases.

    Raises:
        UserError: neither its ``splits_final.json`` nor, where there is none, nnU-Net's rule has such a fold.
    """
    splits = splits_of(paths)
    if splits is None or fold == "all":
        check_fold(fold, num_labelled)
        return
    file, folds = splits
    split_of_fold(file, folds, fold)


def split_of_fold(file: Path, splits: Sequence[dict[str, Any]], fold: Fold) -> dict[str, Any]:
    """The entry of a splits file for a fold.

    Args:
        file: the splits come from, for the message.
        splits: its content.
        fold: a number.

    Raises:
        UserError: the file has no such fold, or one without cases to train or to validate on, which nnU-Net's training
            cannot have.
    """
    if not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise UserError(f"{file}: has no fold {fold}; use {_numbers(len(splits))}")
    split = splits[fold]
    empty = [part for part in ("train", "val") if not split[part]]
    if empty:
        raise UserError(f"{file}: fold {fold} has no case under {empty[0]}; write some there, or use -f all")
    return split


def _numbers(count: int) -> str:
    return "0 or all" if count == 1 else f"0 to {count - 1}, or all" if count else "all"
