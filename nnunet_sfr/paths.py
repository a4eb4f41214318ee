"""Where everything lies: the one place that joins folder names.

The three roots are nnU-Net's own (``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``), read from the
environment when they are used. Below them::

    nnUNet_raw/Dataset042_Name/imagesUl/                       unlabelled images, nnU-Net's file names
    nnUNet_preprocessed/Dataset042_Name/
        nnUNetPlans.json, nnUNetPlans_3d_fullres/              nnU-Net's own
        nnUNetPlans_SFRPlans.json                              what SFR adds to the plan
        nnUNetPlans_3d_fullres_unlabelled/                     unlabelled cases in nnU-Net's format
        pseudo_labels/nnUNetPlans__3d_fullres/fold_all/
            round_0/                                           what the trainers read, whoever made it
            <trainer>_round_1/                                 what a trainer wrote itself
            round_1_model/                                     SFR+: what the re-trained model says before round 1,
            round_1_selection.json                             which cases it is sure of,
            round_1/                                           and what SAM says after learning from those
        sam_views/nnUNetPlans__3d_fullres/                     embedded views of labelled cases, made again when deleted
    nnUNet_results/Dataset042_Name/
        SFR_SAM__nnUNetPlans__3d_fullres/fold_all/round_0/     the fine-tuned SAM (SFR+: and round_1, ...)
        SFR_report__nnUNetPlans__3d_fullres/fold_all/          the page of sfr_report, with its pictures
        nnUNetTrainerSFR_MT__nnUNetPlans__3d_fullres/fold_all/ nnU-Net's own
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_sfr.errors import UserError

UNLABELLED_IMAGES = "imagesUl"
Fold = int | str
"""An nnU-Net fold: a number, or ``"all"`` for every labelled case."""


def nnunet_root(variable: str) -> Path:
    """The folder that an nnU-Net environment variable names.

    Raises:
        UserError: the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(f"{variable} is not set: export {variable}=<folder>, as nnU-Net's set-up asks for")
    return Path(value)


@dataclass(frozen=True)
class SFRPaths:
    """Every path of one data set, plan and configuration.

    Args:
        dataset_name: nnU-Net's full name, ``Dataset042_Name``.
        plans_name: nnU-Net's plans identifier, ``nnUNetPlans`` unless the user chose another.
        configuration: nnU-Net's configuration, ``3d_fullres`` for example.
        data_identifier: nnU-Net's name of the folder with the preprocessed labelled cases (from the plan: two
            configurations can share one).
    """

    dataset_name: str
    plans_name: str
    configuration: str
    data_identifier: str

    @property
    def raw(self) -> Path:
        return nnunet_root("nnUNet_raw") / self.dataset_name

    @property
    def preprocessed(self) -> Path:
        return nnunet_root("nnUNet_preprocessed") / self.dataset_name

    @property
    def results(self) -> Path:
        return nnunet_root("nnUNet_results") / self.dataset_name

    @property
    def raw_unlabelled(self) -> Path:
        return self.raw / UNLABELLED_IMAGES

    @property
    def plans_file(self) -> Path:
        return self.preprocessed / f"{self.plans_name}.json"

    @property
    def sfr_plans_file(self) -> Path:
        return self.preprocessed / f"{self.plans_name}_SFRPlans.json"

    @property
    def labelled(self) -> Path:
        return self.preprocessed / self.data_identifier

    @property
    def unlabelled(self) -> Path:
        return self.preprocessed / f"{self.data_identifier}_unlabelled"

    def pseudo_labels(self, fold: Fold, *, trainer: str | None = None, round_index: int = 0) -> Path:
        """Folder of a pseudo-label store.

        Args:
            fold: whose training reads it.
            trainer: of a round that a trainer wrote itself; None for the store that the trainers read, whoever filled
                it (its manifest says who).
            round_index: 0, or the number of the round.
        """
        name = f"round_{round_index}" if trainer is None else f"{trainer}_round_{round_index}"
        return self.all_pseudo_labels(fold) / name

    def model_pseudo_labels(self, fold: Fold, round_index: int) -> Path:
        """Folder of the store with what the re-trained model says of the pool before an SFR+ round (from 1)."""
        return self.all_pseudo_labels(fold) / f"round_{round_index}_model"

    def selection(self, fold: Fold, round_index: int) -> Path:
        """File that says which cases the model is sure of in an SFR+ round (from 1)."""
        return self.all_pseudo_labels(fold) / f"round_{round_index}_selection.json"

    def all_pseudo_labels(self, fold: Fold) -> Path:
        """Folder of all pseudo-label stores and selections of a fold."""
        return self.preprocessed / "pseudo_labels" / f"{self.plans_name}__{self.configuration}" / f"fold_{fold}"

    @property
    def sam_views(self) -> Path:
        """Folder of what a frozen encoder gave for labelled cases; folds and rounds share them."""
        return self.preprocessed / "sam_views" / f"{self.plans_name}__{self.configuration}"

    def sam_stage(self, fold: Fold, round_index: int = 0) -> Path:
        """Folder of the fine-tuned SAM of one round."""
        stage = f"SFR_SAM__{self.plans_name}__{self.configuration}"
        return self.results / stage / f"fold_{fold}" / f"round_{round_index}"

    def report(self, fold: Fold) -> Path:
        """Folder of the page that ``sfr_report`` writes."""
        return self.results / f"SFR_report__{self.plans_name}__{self.configuration}" / f"fold_{fold}"
