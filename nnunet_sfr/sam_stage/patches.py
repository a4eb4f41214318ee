"""Augmented labelled patches for fine-tuning: nnU-Net's loader and augmentation on the SAM patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_sfr.data.datasets import LoadableCases
from nnunet_sfr.data.loaders import augmented, fitting_patch, without_timing
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.sam_stage.bezier import BezierCurveTransform
from nnunet_sfr.sam_stage.shift import RandomShiftTransform

OVERSAMPLE_FOREGROUND = 0.33
"""nnU-Net's share of patches that are centred on foreground."""


def labelled_patches(
    dataset: SFRDataset,
    cases: LoadableCases,
    *,
    batch_size: int,
    sampling_probabilities: Sequence[float] | None = None,
    oversample_foreground: float = OVERSAMPLE_FOREGROUND,
    anywhere: bool = False,
    processes: int,
    pin_memory: bool,
) -> Iterator[dict[str, Any]]:
    """Endless batches of augmented labelled patches.

    Args:
        dataset: gives patch and labels.
        cases: to learn from.
        batch_size: patches in a batch.
        sampling_probabilities: of each case, in the order of ``cases.identifiers``; None for equal ones.
        oversample_foreground: share of patches that are centred on foreground.
        anywhere: whether the other patches lie anywhere with an ignore label too. nnU-Net centres them on annotated
            voxels there, even if that cuts off part of a case that fits into a patch.
        processes: that augment; 0 for this process.
        pin_memory: for CUDA.

    Returns:
        dictionaries with ``data`` (B, channels, D, H, W) and ``target`` (B, 1, D, H, W), as nnU-Net's loader gives.
    """
    transforms, initial_patch_size = _augmentation(dataset)
    loader = nnUNetDataLoader(
        cases,
        batch_size,
        initial_patch_size,
        dataset.settings.stitching.patch_size,
        dataset.label_manager,
        oversample_foreground_percent=oversample_foreground,
        # by chance: nnU-Net's other rule takes the last of a batch, and of a batch of one none
        probabilistic_oversampling=batch_size == 1 and oversample_foreground > 0,
        sampling_probabilities=sampling_probabilities,
        transforms=transforms,
    )
    if anywhere:
        loader.has_ignore = False
    return augmented(loader, num_processes=processes, pin_memory=pin_memory)


def _augmentation(dataset: SFRDataset) -> tuple[BasicTransform, Any]:
    """nnU-Net's training transforms for the SAM patch, and the larger patch that rotation needs."""
    patch_size = dataset.settings.stitching.patch_size
    rotation, dummy_2d, initial_patch_size, mirror_axes = _geometry_of(patch_size)
    transforms = nnUNetTrainer.get_training_transforms(
        patch_size,
        rotation,
        None,
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=dataset.configuration_manager.use_mask_for_norm,
        # SAM learns label values (also where nnU-Net's network learns regions), hence no conversion to regions
        regions=None,
        ignore_label=dataset.label_manager.ignore_label,
    )
    settings, slice_axis = dataset.settings.fine_tuning, dataset.settings.stitching.slice_axes[0]
    extras = [
        RandomShiftTransform(settings.shift_fraction),
        BezierCurveTransform(settings.bezier_probability, slice_axis),
    ]
    return ComposeTransforms([without_timing(fitting_patch(transforms, patch_size)), *extras]), initial_patch_size


def _geometry_of(patch_size: tuple[int, int, int]) -> tuple[Any, bool, Any, tuple[int, ...]]:
    """nnU-Net's own rule for rotation, dummy-2D and mirroring, asked about our patch."""
    asking = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=list(patch_size)),
        print_to_log_file=lambda *_: None,
        inference_allowed_mirroring_axes=None,
    )
    answer: tuple[Any, bool, Any, tuple[int, ...]] = (
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(asking)
    )
    return answer
