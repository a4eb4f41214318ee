"""Which folds there can be."""

from __future__ import annotations

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, note, ok
from nnunet_sfr.folds import FOLDS, require_fold, splits_of
from nnunet_sfr.paths import DatasetPaths, Fold


def check_folds(paths: DatasetPaths, fold: Fold, num_labelled: int) -> list[Finding]:
    """The folds that the data set's own ``splits_final.json`` has, or that nnU-Net's rule allows.

    Args:
        paths: of the data set.
        fold: that was asked for.
        num_labelled: number of labelled cases.

    Raises:
        UserError: the fold is none of them, or the file is damaged.
    """
    require_fold(paths, fold, num_labelled)
    splits = splits_of(paths)
    if splits is not None:
        file, folds = splits
        return [ok("folds", f"{len(folds)} in {file.name}, and all")]
    if num_labelled < FOLDS:
        cases = "case" if num_labelled == 1 else "cases"
        return [
            note("folds", f"all alone: {num_labelled} labelled {cases}, where nnU-Net's {FOLDS} folds need {FOLDS}")
        ]
    return [ok("folds", f"0 to {FOLDS - 1}, and all")]


def check_split(dataset: SFRDataset, fold: Fold) -> list[Finding]:
    """The cases of a numbered fold, where nnU-Net has divided them already.

    Args:
        dataset: planned and preprocessed.
        fold: that was asked for.

    Raises:
        UserError: ``splits_final.json`` is damaged, has no such fold, or names a case that is not there.
    """
    if fold == "all" or not dataset.paths.splits_file.is_file():
        return []
    training, validation = dataset.split(fold)
    return [
        ok("split", f"fold {fold} of splits_final.json: {len(training)} to train and {len(validation)} to validate on")
    ]
