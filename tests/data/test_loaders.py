"""nnU-Net's augmentation where a patch is thin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_sfr.data.loaders import fitting_patch


def transforms_for(patch_size: tuple[int, int, int]) -> Any:
    return nnUNetTrainer.get_training_transforms(patch_size, (-0.1, 0.1), None, (0, 1, 2), do_dummy_2d_data_aug=True)


@pytest.mark.parametrize("slices", [2, 3])
def test_a_patch_of_few_slices_is_augmented(slices: int) -> None:
    """nnU-Net blurs one image in five, and torch cannot reflect three voxels of two or three."""
    patch_size = (slices, 24, 24)
    transforms = fitting_patch(transforms_for(patch_size), patch_size)
    image, labels = torch.rand(1, *patch_size), torch.zeros(1, *patch_size)
    torch.manual_seed(0)
    np.random.seed(0)
    for _ in range(60):
        assert transforms(image=image, segmentation=labels)["image"].shape == (1, *patch_size)


def test_other_patches_are_blurred_as_ever() -> None:
    transforms = transforms_for((8, 24, 24))
    assert fitting_patch(transforms, (8, 24, 24)) is transforms
    blurs = [one for one in transforms.transforms if isinstance(getattr(one, "transform", None), GaussianBlurTransform)]
    assert len(blurs) == 1
    thin = fitting_patch(transforms, (2, 24, 24))
    assert len(thin.transforms) == len(transforms.transforms) - 1
