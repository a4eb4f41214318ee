"""Which folds there can be."""

from __future__ import annotations

from nnunet_sfr.dataset import FOLDS, SFRDataset, check_fold
from nnunet_sfr.doctor.findings import Finding, note, ok
from nnunet_sfr.paths import Fold


def check_folds(fold: Fold, num_labelled: int) -> list[Finding]:
    """The folds that this many labelled cases allow, by nnU-Net's rule.

    Raises:
        UserError: the fold that was asked for is none of them.
    """
    check_fold(fold, num_labelled)
    if num_labelled < FOLDS:
        cases = "case" if num_labelled == 1 else "cases"
        return [
            note("folds", f"all alone: {num_labelled} labelled {cases}, where nnU-Net's {FOLDS} folds need {FOLDS}")
        ]
    return [ok("folds", f"0 to {FOLDS - 1}, and all")]


def check_split(dataset: SFRDataset, fold: Fold) -> list[Finding]:
    """The cases of a numbered fold, where nnU-Net has divided them already.

    Raises:
        UserError: ``splits_final.json`` is damaged, has no such fold, or names a case that is not there.
    """
    if fold == "all" or not dataset.paths.splits_file.is_file():
        return []
    training, validation = dataset.split(fold)
    return [
        ok("split", f"fold {fold} of splits_final.json: {len(training)} to train and {len(validation)} to validate on")
    ]
