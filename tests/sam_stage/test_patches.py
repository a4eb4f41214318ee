"""Augmented patches of any depth, single slices too."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.sam_stage.patches import OVERSAMPLE_FOREGROUND, labelled_patches
from tests.tiny_project import build_trainer, change_settings


@pytest.mark.parametrize("slices", [1, 3, 4])
def test_thin_patches_are_augmented(slices: int, project: SFRDataset) -> None:
    """Enough of them that every transform of nnU-Net's is drawn, its blur (with a chance of 0.2) too."""
    change_settings(project, {"stitching": {"patch_size": [slices, 24, 22]}})
    thin = open_dataset(project.paths.dataset_name, "3d_fullres", project.paths.plans_name)
    folder = str(thin.paths.labelled)
    seed_everything(0)
    batches = labelled_patches(thin, infer_dataset_class(folder)(folder), batch_size=2, processes=0, pin_memory=False)
    for _ in range(25):
        batch = next(batches)
        assert batch["data"].shape == (2, 1, slices, 24, 22)
        assert batch["target"].shape == (2, 1, slices, 24, 22)
        assert torch.isfinite(batch["data"]).all()


def test_foreground_is_drawn_as_often_as_nnunet_draws_it(project: SFRDataset) -> None:
    assert build_trainer(project, "nnUNetTrainer").oversample_foreground_percent == OVERSAMPLE_FOREGROUND
