"""A labelled patch on the canvas: image and label map, stitched alike."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_sfr.sam_stage.intensities import Intensities, after_augmentation
from nnunet_sfr.sam_stage.stitching import StitchGeometry

IGNORE_INDEX = -1
"""Value of target voxels and of mosaic filling that take no part in the loss."""


def labelled_canvas(
    geometry: StitchGeometry, images: Tensor, labels: Tensor, *, intensities: Intensities, ignore_label: int | None
) -> tuple[Tensor, Tensor]:
    """What SAM sees of labelled patches, and what it is to answer.

    Args:
        geometry: how patches are stitched.
        images: [B, C, D, H, W], as :class:`nnunet_sfr.sam_stage.intensities.CasesWithIntensities` gives them.
        labels: [B, 1, D, H, W], label values.
        intensities: of the model.
        ignore_label: the data set's, or None.

    Returns:
        images [B, C, S, S] with the model's intensities, and targets [B, S, S], int64 with ``IGNORE_INDEX`` for
        voxels with the ignore label and for pixels that show nothing.

    Raises:
        ValueError: the shapes are not those of the patch.
    """
    target = geometry.stitch_labels(target_labels(labels, ignore_label), fill=IGNORE_INDEX)
    return geometry.stitch(after_augmentation(images, intensities)), target


def target_labels(labels: Tensor, ignore_label: int | None) -> Tensor:
    """Label values of any shape with the data set's ignore label, if any, replaced by ``IGNORE_INDEX``; int64.

    Args:
        labels: of any shape.
        ignore_label: the data set's, or None.
    """
    labels = labels.long()
    return labels if ignore_label is None else torch.where(labels == ignore_label, IGNORE_INDEX, labels)
