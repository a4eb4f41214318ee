"""Labelled and unlabelled patches, side by side, from nnU-Net's own data loader and augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

Batch = dict[str, Any]


@dataclass
class TwoStreams(Iterator[dict[str, Batch]]):
    """Yields ``{"labelled": batch, "unlabelled": batch}``, both as nnU-Net's loader makes them."""

    labelled: Iterator[Batch]
    unlabelled: Iterator[Batch]

    def __next__(self) -> dict[str, Batch]:
        return {"labelled": next(self.labelled), "unlabelled": next(self.unlabelled)}

    def stop_workers(self) -> None:
        """Stop the worker processes of both streams."""
        for stream in (self.labelled, self.unlabelled):
            stop_workers(stream)


def stop_workers(stream: Iterator[Batch]) -> None:
    """Stop the worker processes of a stream, if it has any."""
    if isinstance(stream, NonDetMultiThreadedAugmenter):
        stream._finish()


def augmented(loader: nnUNetDataLoader, *, num_processes: int, pin_memory: bool) -> Iterator[Batch]:
    """Run a loader in worker processes as nnU-Net does, or in this process when there are none.

    Args:
        loader: with its transforms.
        num_processes: 0 for this process.
        pin_memory: for CUDA.
    """
    if num_processes == 0:
        stream: Iterator[Batch] = SingleThreadedAugmenter(loader, None)
        return stream
    stream = NonDetMultiThreadedAugmenter(
        data_loader=loader,
        transform=None,
        num_processes=num_processes,
        num_cached=max(6, num_processes // 2),
        # forked workers would all inherit the state of this process's torch generator
        seeds=np.random.SeedSequence().generate_state(num_processes).tolist(),
        pin_memory=pin_memory,
        wait_time=0.002,
    )
    return stream


SHORTEST_AXIS_TO_BLUR = 4
"""nnU-Net's blur reflects up to three voxels at each end, and torch reflects fewer voxels than there are."""


def fitting_patch(transforms: ComposeTransforms, patch_size: Sequence[int]) -> ComposeTransforms:
    """nnU-Net's transforms, without the blur where the patch has an axis that is too short for it, as single slices.

    Args:
        transforms: for training.
        patch_size: (D, H, W) or (H, W) in voxels.
    """
    if min(patch_size) >= SHORTEST_AXIS_TO_BLUR:
        return transforms
    return ComposeTransforms(
        [
            transform
            for transform in transforms.transforms
            if not (isinstance(transform, RandomTransform) and isinstance(transform.transform, GaussianBlurTransform))
        ]
    )


def without_timing(transform: BasicTransform) -> BasicTransform:
    """Keep the blur from choosing its convolution by a stopwatch.

    nnU-Net lets it time two implementations whose results differ in the last bits; with it, a resumed run would not
    repeat an uninterrupted one.
    """
    if isinstance(transform, ComposeTransforms):
        for inner in transform.transforms:
            without_timing(inner)
    elif isinstance(transform, RandomTransform):
        without_timing(transform.transform)
    elif isinstance(transform, GaussianBlurTransform):
        transform.benchmark = False
    return transform
