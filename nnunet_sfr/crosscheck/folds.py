"""Which labelled cases are left out together."""

from __future__ import annotations

from dataclasses import replace

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError

MOST_FOLDS = 5
"""nnU-Net's number of folds; with fewer cases, each is left out once."""
SEED = 12345
"""nnU-Net's."""


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
    folds = generate_crossval_split(identifiers, seed=SEED, n_splits=min(MOST_FOLDS, len(identifiers)))
    splits = tuple((list(map(str, fold["train"])), list(map(str, fold["val"]))) for fold in folds)
    return replace(dataset, splits=splits, paths=replace(dataset.paths, crosscheck=True))
