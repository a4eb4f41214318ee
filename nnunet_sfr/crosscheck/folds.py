"""Which labelled cases are left out together."""

from __future__ import annotations

from dataclasses import replace

from nnunet_sfr.dataset import SFRDataset, make_splits
from nnunet_sfr.errors import UserError
from nnunet_sfr.folds import FOLDS


def with_crosscheck_folds(dataset: SFRDataset) -> SFRDataset:
    """The data set with folds in which every labelled case is left out once, and folders for their SAMs.

    The folds are made by nnU-Net's function and seed, as many as there are cases, at most five. They are not those of
    ``splits_final.json``, which needs five cases, and write nothing there.

    Args:
        dataset: planned and preprocessed.

    Raises:
        UserError: there are no labelled cases, or there is only one.
    """
    identifiers = dataset.labelled_identifiers()
    if len(identifiers) < 2:
        raise UserError(
            f"{dataset.paths.labelled}: has one labelled case; what SAM makes of cases that it did not learn from "
            "cannot be measured with fewer than two. Look at its labels of the unlabelled cases instead (sfr_report)"
        )
    splits = tuple((fold["train"], fold["val"]) for fold in make_splits(identifiers, min(FOLDS, len(identifiers))))
    return replace(dataset, splits=splits, paths=replace(dataset.paths, crosscheck=True))
