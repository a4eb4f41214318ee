"""The stitched image that SAM sees of the target, with SAM's labels drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from nnunet_sfr.canvas import UNSCALED, Scale
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.report.pictures import Colours, draw_labels, to_grey
from nnunet_sfr.report.target import Voxel
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE
from nnunet_sfr.sam_stage.stitching import StitchGeometry

SIDE = 768
"""Pixels that a mosaic should have at least, about."""


@dataclass(frozen=True)
class Stitching:
    """How a store's SAM saw its patches: the ``stitching`` of its manifest."""

    patch_size: tuple[int, int, int]
    canvas_size: int
    scale: Scale = UNSCALED
    slice_axis: int = 0

    @classmethod
    def of(cls, made_by: Provenance) -> Stitching:
        """Of a store that SAM filled."""
        values = made_by.settings["stitching"]
        slices, height, width = values["patch_size"]
        # stores of version 0.1 knew neither scale nor axis
        scale, slice_axis = tuple(values.get("scale", UNSCALED)), values.get("slice_axis", 0)
        return cls((slices, height, width), values["canvas_size"], scale, slice_axis)


def patch_around(centre: Voxel, shape: Sequence[int], patch_size: Sequence[int]) -> tuple[slice, ...]:
    """The patch with ``centre`` in its middle, moved as far as it must to lie inside.

    Args:
        centre: (D, H, W).
        shape: of the volume, nowhere smaller than the patch.
        patch_size: (D, H, W).
    """
    starts = [
        min(max(middle - size // 2, 0), length - size)
        for middle, length, size in zip(centre, shape, patch_size, strict=True)
    ]
    return tuple(slice(start, start + size) for start, size in zip(starts, patch_size, strict=True))


def stitched(
    image: np.ndarray, labels: np.ndarray, centre: Voxel, stitching: Stitching
) -> tuple[np.ndarray, np.ndarray]:
    """The patch around a point as SAM sees it, and its labels, as :class:`VolumePredictor` pads and stitches.

    Args:
        image: (D, H, W), preprocessed.
        labels: (D, H, W).
        centre: (D, H, W) in voxels.
        stitching: patch and canvas.

    Returns:
        image (S, S) and labels (S, S) of the canvas; where no voxel is shown, 0 and ``IGNORE``.
    """
    geometry = StitchGeometry(stitching.patch_size, stitching.canvas_size, stitching.scale, stitching.slice_axis)
    canvas = geometry.stitch(_patch(image, 0, centre, stitching))[0, 0]
    label_canvas = geometry.stitch_labels(_patch(labels, IGNORE, centre, stitching), fill=IGNORE)[0]
    return canvas.numpy(), label_canvas.numpy()


def _patch(volume: np.ndarray, fill: int, centre: Voxel, stitching: Stitching) -> torch.Tensor:
    """The patch (1, 1, D, H, W) around a point."""
    padded = pad_nd_image(torch.from_numpy(volume[None]), stitching.patch_size, "constant", {"value": fill})
    # an axis that was padded is as long as the patch, so that the centre has not to be moved along it
    patch: torch.Tensor = padded[(slice(None), *patch_around(centre, padded.shape[1:], stitching.patch_size))]
    return patch[None]


def draw_mosaic(
    image: np.ndarray,
    labels: np.ndarray,
    centre: Voxel,
    stitching: Stitching,
    levels: tuple[float, float],
    colours: Colours,
) -> np.ndarray:
    """:func:`stitched` as a picture (N, N, 3), uint8; ``levels`` are the values that are black and white.

    A small canvas is enlarged by a whole number, so that N is near ``SIDE``: every pixel of SAM's stays one colour.
    """
    factor = max(1, round(SIDE / stitching.canvas_size))
    canvas, canvas_labels = (_enlarge(part, factor) for part in stitched(image, labels, centre, stitching))
    return draw_labels(to_grey(canvas, levels), canvas_labels, colours)


def _enlarge(canvas: np.ndarray, factor: int) -> np.ndarray:
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)
