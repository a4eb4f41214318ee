"""What a canvas holds: the one rule that settings, planning, stitching and doctor ask.

A patch of (D, H, W) voxels is resampled by a factor per axis before it is stitched, and cut into slices across one
axis; they then take h x w pixels each, of which a square canvas of side S holds ``S // h`` rows and ``S // w`` columns.
Importing this module does not import torch.
"""

from __future__ import annotations

import math
from fractions import Fraction

from nnunet_sfr.wording import times

Size = tuple[int, int, int]
"""(D, H, W) of a patch in voxels, or (slices, height, width) of it on a canvas in pixels."""
Scale = tuple[float, float, float]
"""Factors for (D, H, W)."""

UNSCALED: Scale = (1.0, 1.0, 1.0)


def scaled_size(patch_size: Size, scale: Scale) -> Size:
    """Size of a resampled patch in pixels: per axis max(1, floor(length * factor + 1/2)).

    Halves are rounded up, and a factor counts as the decimal number that is written in the plan: 35 * 0.7 gives 25,
    where Python's ``round`` and binary fractions would each give 24.

    Args:
        patch_size: (D, H, W) in voxels.
        scale: factors for (D, H, W).

    Returns:
        (D, H, W) in pixels.

    Raises:
        ValueError: a factor that is not finite and positive.
    """
    if len(scale) != 3 or not all(math.isfinite(factor) and factor > 0 for factor in scale):
        raise ValueError(f"scale needs three finite positive factors, got {scale}")
    depth, height, width = (
        max(1, math.floor(int(length) * Fraction(str(factor)) + Fraction(1, 2)))
        for length, factor in zip(patch_size, scale, strict=True)
    )
    return depth, height, width


def shown_size(patch_size: Size, scale: Scale, slice_axis: int) -> Size:
    """(slices, height, width) of a patch on the canvas in pixels: resampled, with the axis of the slices first.

    Args:
        patch_size: (D, H, W) in voxels.
        scale: factors for (D, H, W).
        slice_axis: 0, 1 or 2: across which the resampled patch is cut into slices.

    Raises:
        ValueError: a factor that is not finite and positive, or an axis other than 0, 1 and 2.
    """
    if slice_axis not in (0, 1, 2):
        raise ValueError(f"slice_axis must be 0, 1 or 2, got {slice_axis}")
    scaled = scaled_size(patch_size, scale)
    height, width = (length for axis, length in enumerate(scaled) if axis != slice_axis)
    return scaled[slice_axis], height, width


def tiles(size: Size, canvas_size: int) -> tuple[int, int]:
    """(rows, columns) of slices for which a canvas has room.

    Args:
        size: of the patch as it is stitched, from :func:`shown_size`.
        canvas_size: side of the square canvas in pixels.
    """
    _, height, width = size
    return canvas_size // height, canvas_size // width


def fits(size: Size, canvas_size: int) -> bool:
    """Whether all slices of a patch find a place on the canvas.

    Args:
        size: (slices, height, width) of the patch as it is stitched, from :func:`shown_size`.
        canvas_size: side of the square canvas in pixels.
    """
    rows, columns = tiles(size, canvas_size)
    return size[0] <= rows * columns


def filled_share(size: Size, canvas_size: int) -> float:
    """Share of the canvas's pixels that show a part of the patch, 0 to 1.

    Args:
        size: (slices, height, width) of the patch as it is stitched, from :func:`shown_size`.
        canvas_size: side of the square canvas in pixels.
    """
    return math.prod(size) / canvas_size**2


def check_canvas(patch_size: Size, canvas_size: int, scale: Scale, slice_axis: int) -> None:
    """Refuse a patch that cannot be stitched.

    Args:
        patch_size: (D, H, W) in voxels.
        canvas_size: side of the square canvas in pixels.
        scale: factors for (D, H, W).
        slice_axis: across which the resampled patch is cut into slices.

    Raises:
        ValueError: a size below 1, a factor that is not finite and positive, an axis that there is not, or more slices
            than fit on the canvas.
    """
    if len(patch_size) != 3 or min(patch_size) < 1:
        raise ValueError(f"patch_size needs three positive numbers, got {patch_size}")
    if canvas_size < 1:
        raise ValueError(f"canvas_size must be at least 1, got {canvas_size}")
    size = shown_size(patch_size, scale, slice_axis)
    if fits(size, canvas_size):
        return
    slices, height, width = size
    rows, columns = tiles(size, canvas_size)
    scaled = (
        "" if scaled_size(patch_size, scale) == tuple(patch_size) else f" ({times(patch_size)} at scale {times(scale)})"
    )
    smaller = "patch" if not scaled else "patch or scale"
    raise ValueError(
        f"a canvas of {canvas_size} pixels holds {rows} x {columns} slices of {height} x {width}, "
        f"but patch_size asks for {slices}{scaled}; take a smaller {smaller}, or a larger canvas"
    )
