"""The stitched image that SAM sees of the target, and SAM's labels to lay over it, the same way up as the planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from nnunet_sfr.canvas import UNSCALED
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.report.marks import mark_sides
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.report.pictures import Colours, colour_labels, to_grey
from nnunet_sfr.report.target import Voxel
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.stitching import StitchGeometry

SIDE = 768
"""Pixels that a mosaic should have at least, about."""


def geometry_of_labels(made_by: Provenance) -> StitchGeometry:
    """How the SAM that filled a store saw its patches; of several axes, across the first.

    Args:
        made_by: of a store that SAM filled.
    """
    values = made_by.settings["stitching"]
    slices, height, width = values["patch_size"]
    # stores of version 0.1 knew neither scale nor axis
    scale, slice_axis = tuple(values.get("scale", UNSCALED)), values.get("slice_axes", (0,))[0]
    return StitchGeometry((slices, height, width), values["canvas_size"], scale, slice_axis)


def turned(geometry: StitchGeometry, orientation: Orientation) -> StitchGeometry:
    """The same for a volume whose axes were turned by :meth:`Orientation.turn`.

    Args:
        geometry: of the volume as it was preprocessed.
        orientation: of that volume.
    """
    order = [orientation.axes.index(axis) for axis in range(3)]
    depth, height, width = (geometry.patch_size[axis] for axis in order)
    z, y, x = (geometry.scale[axis] for axis in order)
    return replace(
        geometry,
        patch_size=(depth, height, width),
        scale=(z, y, x),
        slice_axis=orientation.axes[geometry.slice_axis],
    )


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
    image: np.ndarray, labels: np.ndarray, centre: Voxel, geometry: StitchGeometry
) -> tuple[np.ndarray, np.ndarray]:
    """The patch around a point as SAM sees it, and its labels, padded and stitched as by
    :class:`nnunet_sfr.sam_stage.prediction.VolumePredictor`.

    Args:
        image: (D, H, W), preprocessed.
        labels: (D, H, W).
        centre: (D, H, W) in voxels.
        geometry: patch and canvas.

    Returns:
        image (S, S) and labels (S, S) of the canvas; where no voxel is shown, NaN and ``IGNORE_INDEX``.
    """
    canvas = geometry.stitch(_patch(image.astype(np.float32), np.nan, centre, geometry), np.nan)[0, 0]
    label_canvas = geometry.stitch_labels(_patch(labels, IGNORE_INDEX, centre, geometry), fill=IGNORE_INDEX)[0]
    return canvas.numpy(), label_canvas.numpy()


def _patch(volume: np.ndarray, fill: float, centre: Voxel, geometry: StitchGeometry) -> torch.Tensor:
    """The patch (1, 1, D, H, W) around a point."""
    contiguous = torch.from_numpy(np.ascontiguousarray(volume[None]))
    padded = pad_nd_image(contiguous, geometry.patch_size, "constant", {"value": fill})
    # an axis that was padded is as long as the patch, so that the centre has not to be moved along it
    patch: torch.Tensor = padded[(slice(None), *patch_around(centre, padded.shape[1:], geometry.patch_size))]
    return patch[None]


def draw_mosaic(
    image: np.ndarray,
    labels: np.ndarray,
    centre: Voxel,
    geometry: StitchGeometry,
    orientation: Orientation,
    levels: tuple[float, float],
    colours: Colours,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`stitched` as pictures, every slice the same way up as the plane that it lies in.

    A small canvas is enlarged by a whole number, so that N is near ``SIDE``: every pixel of SAM's stays one grey.

    Args:
        image: (D, H, W), preprocessed.
        labels: (D, H, W).
        centre: (D, H, W) in voxels.
        geometry: patch and canvas.
        orientation: of the preprocessed arrays.
        levels: values that are black and white.
        colours: of the labels.

    Returns:
        image (N, N), uint8, with the sides of the patient on the first slice, and labels (N, N, 4), uint8.
    """
    geometry = turned(geometry, orientation)
    centre = orientation.turn_voxel(centre, image.shape)
    image, labels = orientation.turn(image), orientation.turn(labels)
    if geometry.slice_axis != 0:  # rows of coronal and sagittal planes run from the head down
        centre = (image.shape[0] - 1 - centre[0], centre[1], centre[2])
        image, labels = image[::-1], labels[::-1]
    factor = max(1, round(SIDE / geometry.canvas_size))
    canvas, canvas_labels = (_enlarge(part, factor) for part in stitched(image, labels, centre, geometry))
    picture = to_grey(np.where(np.isnan(canvas), levels[0], canvas), levels)
    if orientation.is_known:
        tile = (0, 0, factor * geometry.tile_width, factor * geometry.tile_height)
        picture = mark_sides(picture, tile, geometry.slice_axis)
    return picture, colour_labels(canvas_labels, colours)


def _enlarge(canvas: np.ndarray, factor: int) -> np.ndarray:
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)
