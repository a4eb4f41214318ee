"""The rules that choose the mosaic: how many slices of what size one SAM input shows.

Axes are (D, H, W) on the preprocessed grid, after nnU-Net's ``transpose_forward``. A patch is resampled by ``scale``
and cut into slices before it is stitched; its (slices, height, width) = (n, h, w) in pixels is
:func:`nnunet_sfr.canvas.shown_size`, and it fits on a canvas of S pixels if n <= (S // h) * (S // w) for each of the
axes across which it is cut. All the rules ask this of sizes in pixels and give patches in voxels. Let T be the extent
of the data: per axis, the largest of all cases.

1. Canvas. Of the sizes that the model's record names (``SAMModel.canvas``) the smallest that holds T whole, else the
   largest: the cost grows with the square of S. SAM's own models have one size, which they were pre-trained with.
2. Whole volume. If T fits, the patch is T: every mosaic shows a whole volume, as the paper does for LA and BraTS.
3. Largest patch. Otherwise a patch grows from one voxel in the proportions of nnU-Net's patch, which follow the
   spacing and the extent of the data (2D configurations: T's depth and nnU-Net's patch), one voxel at a time on the
   axis that is farthest behind its proportion. An axis stops at T, or where one more voxel would not fit. What comes
   out fills the mosaic: no axis can grow by a voxel. (nnU-Net's 128^3 on a canvas of 1024 gives 100 slices of 102^2;
   the paper takes 96 slices of 96^2.)
4. Scale. :data:`DEFAULT_SCALE`, for every data set.
5. Slices. nnU-Net puts the axis of the largest spacing first, and slices are taken across it where it is larger than
   the others by a factor of :data:`ANISOTROPY`. Where spacings hardly differ, nnU-Net's order means nothing; slices
   are taken across the first axis of the images as they are read (z of NIfTI files, so that they are axial).
   Three axes take three times the time; docs/results.md says what they bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from nnunet_sfr.canvas import UNSCALED, Scale, Size, fits, shown_size
from nnunet_sfr.data.preprocessed_grid import preprocessed_shape
from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.settings import StitchingSettings

DEFAULT_SCALE: Scale = UNSCALED
"""What planning writes: every voxel a pixel, the paper's rule. (The setting's own default stands for plans that do not
name a scale, and stays 1.)"""


ANISOTROPY = 1.5
"""Ratio of spacings from which slices are thick."""


def choose_stitching(
    model: SAMModel,
    data_extent: Size,
    nnunet_patch_size: Sequence[int],
    scale: Scale = DEFAULT_SCALE,
    slice_axes: tuple[int, ...] = (0,),
) -> StitchingSettings:
    """Canvas and patch by the rules above.

    Args:
        model: SAM's record.
        data_extent: T.
        nnunet_patch_size: of the nnU-Net configuration: three numbers, or (height, width) in 2D.
        scale: factors for (D, H, W) by which patches are resampled.
        slice_axes: across which they are cut into slices, a mosaic for each.

    Raises:
        ValueError: a factor that is not finite and positive, or so large that not even one voxel fits.
    """
    canvas = choose_canvas(model, data_extent, scale, slice_axes)
    proportions = (data_extent[0], *nnunet_patch_size) if len(nnunet_patch_size) == 2 else tuple(nnunet_patch_size)
    depth, height, width = (int(length) for length in proportions)
    patch = choose_patch(data_extent, (depth, height, width), canvas, scale, slice_axes)
    return StitchingSettings(patch_size=patch, canvas_size=canvas, scale=scale, slice_axes=slice_axes)


def choose_slice_axes(spacing: Sequence[float], transpose_forward: Sequence[int]) -> tuple[int, ...]:
    """The axes across which patches are cut into slices (rule 5): one.

    Args:
        spacing: of the nnU-Net configuration in mm: (D, H, W), or (H, W) in 2D, which is always cut across D.
        transpose_forward: from nnU-Net's plan.
    """
    if len(spacing) < 3 or spacing[0] >= ANISOTROPY * min(spacing[1:]):
        return (0,)
    return (list(transpose_forward).index(0),)


def choose_canvas(
    model: SAMModel, data_extent: Size, scale: Scale = DEFAULT_SCALE, slice_axes: Sequence[int] = (0,)
) -> int:
    """Side of the mosaic in pixels (rule 1).

    Args:
        model: SAM's record.
        data_extent: T, (D, H, W) in voxels.
        scale: factors for (D, H, W) by which patches are resampled.
        slice_axes: across which they are cut into slices, one mosaic for each.
    """
    sizes = model.canvas.sizes
    return next((canvas for canvas in sizes if _fits(data_extent, canvas, scale, slice_axes)), sizes[-1])


def choose_patch(
    data_extent: Size,
    proportions: Size,
    canvas: int,
    scale: Scale = DEFAULT_SCALE,
    slice_axes: Sequence[int] = (0,),
) -> Size:
    """The largest patch for a canvas, in voxels (rules 2 and 3).

    Args:
        data_extent: T, (D, H, W) in voxels.
        proportions: (D, H, W), in which the patch grows.
        canvas: side of the mosaic in pixels.
        scale: factors for (D, H, W) by which patches are resampled.
        slice_axes: across which they are cut into slices, one mosaic for each.
    """
    if _fits(data_extent, canvas, scale, slice_axes):
        return data_extent
    patch: Size = (1, 1, 1)
    growing = [0, 1, 2]
    while growing:
        axis = min(growing, key=lambda axis: Fraction(patch[axis], proportions[axis]))
        larger = _grown(patch, axis)
        if larger[axis] <= data_extent[axis] and _fits(larger, canvas, scale, slice_axes):
            patch = larger
        else:
            # for good: what does not fit now fits even less when the other axes have grown
            growing.remove(axis)
    return patch


def _fits(patch: Size, canvas: int, scale: Scale, slice_axes: Sequence[int]) -> bool:
    return all(fits(shown_size(patch, scale, axis), canvas) for axis in slice_axes)


def _grown(patch: Size, axis: int) -> Size:
    depth, height, width = (length + (index == axis) for index, length in enumerate(patch))
    return depth, height, width


def data_extent(
    shapes: Iterable[Sequence[int]],
    spacings: Iterable[Sequence[float]],
    *,
    transpose_forward: Sequence[int],
    target_spacing: Sequence[float],
) -> Size:
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
