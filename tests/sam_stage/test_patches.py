"""Augmented patches of any depth, single slices too."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
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


class OneBlob:
    """A case of 40 x 40 x 40 voxels of which 27 are foreground."""

    identifiers = ("case",)

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, None, dict[str, Any]]:
        labels = np.zeros((1, 40, 40, 40), np.int8)
        labels[:, 29:32, 9:12, 19:22] = 1
        return np.zeros(labels.shape, np.float32), labels, None, {"class_locations": {1: np.argwhere(labels == 1)}}


def test_single_patches_are_centred_on_foreground_too(project: SFRDataset) -> None:
    """A third of them; where nnU-Net counts within a batch, a batch of one would have none."""
    change_settings(project, {"stitching": {"patch_size": [6, 8, 8]}, "fine_tuning": {"shift_fraction": 0.0}})
    small = open_dataset(project.paths.dataset_name, "3d_fullres", project.paths.plans_name)
    blob: Any = OneBlob()

    def share(patches: int, **options: Any) -> float:
        seed_everything(0)
        batches = labelled_patches(small, blob, batch_size=1, processes=0, pin_memory=False, **options)
        return float(np.mean([bool((next(batches)["target"] == 1).any()) for _ in range(patches)]))

    assert 0.2 < share(120) < 0.5
    assert share(40, oversample_foreground=0.0) < 0.2


class OneCorner(OneBlob):
    """A case as large as a patch that is annotated in its last corner alone."""

    shape = (20, 24, 22)

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, None, dict[str, Any]]:
        labels = np.full((1, *self.shape), 2, np.int8)
        labels[:, -3:, -3:, -3:] = 1
        annotated = np.argwhere(labels == 1)
        return np.ones(labels.shape, np.float32), labels, None, {"class_locations": {1: annotated, (0, 1): annotated}}


def test_a_case_that_fits_is_shown_whole_with_an_ignore_label_too(project: SFRDataset) -> None:
    """nnU-Net centres patches on annotated voxels."""
    labels = {"background": 0, "class_1": 1, "ignore": 2}
    partly = dataclasses.replace(project, dataset_json={**project.dataset_json, "labels": labels})
    assert partly.label_manager.ignore_label == 2
    corner: Any = OneCorner()
    options: dict[str, Any] = {"batch_size": 1, "oversample_foreground": 0.0, "processes": 0, "pin_memory": False}
    get_bbox = nnUNetDataLoader.get_bbox

    def in_the_middle(*, anywhere: bool) -> set[tuple[bool, ...]]:
        """Axis by axis, whether patches have the centre of the case as theirs."""
        boxes: list[Any] = []

        def spied(loader: Any, shape: Any, *arguments: Any, **others: Any) -> Any:
            loader.annotated_classes_key = (0, 1)
            boxes.append(get_bbox(loader, shape, *arguments, **others))
            return boxes[-1]

        with mock.patch.object(nnUNetDataLoader, "get_bbox", spied):
            batches = labelled_patches(partly, corner, anywhere=anywhere, **options)
            for _ in range(5):
                next(batches)
        # what is drawn is larger, and cut around its centre after it was turned
        return {
            tuple(abs((low + high) / 2 - size / 2) <= 1 for low, high, size in zip(*box, corner.shape, strict=True))
            for box in boxes
        }

    assert in_the_middle(anywhere=True) == {(True, True, True)}
    assert in_the_middle(anywhere=False) != {(True, True, True)}


def test_foreground_is_drawn_as_often_as_nnunet_draws_it(project: SFRDataset) -> None:
    assert build_trainer(project, "nnUNetTrainer").oversample_foreground_percent == OVERSAMPLE_FOREGROUND
