"""The rules that choose the mosaic: how many slices of what size one SAM input shows.

Axes are (D, H, W): slices, height, width on the preprocessed grid, after nnU-Net's ``transpose_forward``. A canvas of S
pixels holds ``S // H`` rows and ``S // W`` columns of slices at full resolution (they are never scaled), so a patch
fits if D <= (S // H) * (S // W). Let T be the extent of the data: per axis, the largest of all cases.

1. Canvas. SAM's own 1024 pixels for vit_b, vit_l and vit_h (what it was pre-trained with). For vit_tiny the smallest
   multiple of 64 up to 512 that holds T whole, else 512: its cost grows with the square of S.
2. Whole volume. If T fits, the patch is T: every mosaic shows a whole volume, as the paper does for LA and BraTS.
3. Largest patch. Otherwise a patch grows from one voxel in the proportions of nnU-Net's patch, which follow the
   spacing and the extent of the data (2D configurations: T's depth and nnU-Net's patch), one voxel at a time on the
   axis that is farthest behind its proportion. An axis stops at T, or where one more voxel would not fit. What comes
   out fills the mosaic: no axis can grow by a voxel. (nnU-Net's 128^3 on a canvas of 1024 gives 100 slices of 102^2;
   the paper takes 96 slices of 96^2.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from nnunet_sfr.data.preprocessing import preprocessed_shape
from nnunet_sfr.settings import StitchingSettings

Extent = tuple[int, int, int]
"""(slices, height, width) in voxels."""

SAM_CANVAS = 1024
TINY_CANVAS_STEP, TINY_CANVAS_MAXIMUM = 64, 512


def choose_stitching(model: str, data_extent: Extent, nnunet_patch_size: Sequence[int]) -> StitchingSettings:
    """Canvas and patch by the rules above.

    Args:
        model: a name of :data:`nnunet_sfr.settings.SAM_MODELS`.
        data_extent: T.
        nnunet_patch_size: of the nnU-Net configuration: three numbers, or (height, width) in 2D.
    """
    canvas = choose_canvas(model, data_extent)
    proportions = (data_extent[0], *nnunet_patch_size) if len(nnunet_patch_size) == 2 else tuple(nnunet_patch_size)
    depth, height, width = (int(length) for length in proportions)
    return StitchingSettings(patch_size=choose_patch(data_extent, (depth, height, width), canvas), canvas_size=canvas)


def choose_canvas(model: str, data_extent: Extent) -> int:
    """Side of the mosaic in pixels (rule 1)."""
    if model != "vit_tiny":
        return SAM_CANVAS
    candidates = range(TINY_CANVAS_STEP, TINY_CANVAS_MAXIMUM + 1, TINY_CANVAS_STEP)
    return next((canvas for canvas in candidates if fits(data_extent, canvas)), TINY_CANVAS_MAXIMUM)


def choose_patch(data_extent: Extent, proportions: Extent, canvas: int) -> Extent:
    """The largest patch for a canvas (rules 2 and 3)."""
    if fits(data_extent, canvas):
        return data_extent
    patch: Extent = (1, 1, 1)
    growing = [0, 1, 2]
    while growing:
        axis = min(growing, key=lambda axis: Fraction(patch[axis], proportions[axis]))
        larger = _grown(patch, axis)
        if larger[axis] <= data_extent[axis] and fits(larger, canvas):
            patch = larger
        else:
            # for good: what does not fit now fits even less when the other axes have grown
            growing.remove(axis)
    return patch


def fits(patch: Extent, canvas: int) -> bool:
    """Whether all slices of a patch find a place on the canvas, at full resolution."""
    depth, height, width = patch
    return depth <= (canvas // height) * (canvas // width)


def _grown(patch: Extent, axis: int) -> Extent:
    depth, height, width = (length + (index == axis) for index, length in enumerate(patch))
    return depth, height, width


def data_extent(
    shapes: Iterable[Sequence[int]],
    spacings: Iterable[Sequence[float]],
    *,
    transpose_forward: Sequence[int],
    target_spacing: Sequence[float],
) -> Extent:
    """T: per axis, the largest preprocessed length of all cases.

    Args:
        shapes: voxels of every case after nnU-Net's crop, axes as the reader returns them.
        spacings: in mm, the same axes.
        transpose_forward: from nnU-Net's plan.
        target_spacing: of the nnU-Net configuration in mm, after the transposition: (D, H, W), or (H, W) in 2D.
    """
    preprocessed = [
        preprocessed_shape(
            [shape[axis] for axis in transpose_forward], [spacing[axis] for axis in transpose_forward], target_spacing
        )
        for shape, spacing in zip(shapes, spacings, strict=True)
    ]
    depth, height, width = np.max(preprocessed, axis=0).tolist()
    return depth, height, width
