"""The patches of a semi-supervised training: nnU-Net's sampling and augmentation, for both streams alike."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_sfr.data.confidence_transform import WithVoxelConfidence
from nnunet_sfr.data.loaders import TwoStreams, augmented, fitting_patch, without_timing


def open_streams(
    trainer: nnUNetTrainer,
    *,
    labelled: nnUNetBaseDataset,
    unlabelled: nnUNetBaseDataset,
    held_out: nnUNetBaseDataset,
    voxel_confidence: bool = False,
) -> tuple[TwoStreams, Any]:
    """Open the loaders of a trainer.

    The worker processes that nnU-Net allows are shared between the two training streams.

    Args:
        trainer: gives patch, batch size, labels and transforms.
        labelled: training cases.
        unlabelled: the pool.
        held_out: validation cases.
        voxel_confidence: whether the pool delivers it; the targets of its patches then end with the map (n, 1, ...).

    Returns:
        both training streams, and the validation stream.
    """
    training, validation, initial_patch_size = _transforms(trainer)
    of_the_pool = WithVoxelConfidence(training) if voxel_confidence else training
    workers = get_allowed_n_proc_DA()
    half = 0 if workers == 0 else max(1, workers // 2)
    streams = TwoStreams(
        _stream(trainer, labelled, initial_patch_size, training, half),
        _stream(trainer, unlabelled, initial_patch_size, of_the_pool, half),
    )
    validation_stream = _stream(trainer, held_out, trainer.configuration_manager.patch_size, validation, half)
    next(streams), next(validation_stream)  # as nnU-Net does: a loader that fails, fails before the first epoch
    return streams, validation_stream


def _transforms(trainer: nnUNetTrainer) -> tuple[Any, Any, Any]:
    """nnU-Net's transforms for training and validation, and the larger patch that rotation needs."""
    labels = trainer.label_manager
    label_settings = {
        "is_cascaded": trainer.is_cascaded,
        "foreground_labels": labels.foreground_labels,
        "regions": labels.foreground_regions if labels.has_regions else None,
        "ignore_label": labels.ignore_label,
    }
    rotation, dummy_2d, initial_patch_size, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    scales = trainer._get_deep_supervision_scales()
    training = trainer.get_training_transforms(
        trainer.configuration_manager.patch_size,
        rotation,
        scales,
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
        **label_settings,
    )
    validation = trainer.get_validation_transforms(scales, **label_settings)
    training = fitting_patch(training, trainer.configuration_manager.patch_size)
    return without_timing(training), validation, initial_patch_size


def _stream(
    trainer: nnUNetTrainer, cases: nnUNetBaseDataset, patch_size: Any, transforms: Any, num_processes: int
) -> Any:
    loader = nnUNetDataLoader(
        cases,
        trainer.batch_size,
        patch_size,
        trainer.configuration_manager.patch_size,
        trainer.label_manager,
        oversample_foreground_percent=trainer.oversample_foreground_percent,
        transforms=transforms,
        probabilistic_oversampling=trainer.probabilistic_oversampling,
    )
    return augmented(loader, num_processes=num_processes, pin_memory=trainer.device.type == "cuda")
