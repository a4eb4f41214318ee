"""The rules that choose canvas and patch: named examples, and what must hold for every input."""

from __future__ import annotations

import itertools

import pytest

from nnunet_sfr.canvas import Scale, Size, fits, scaled_size
from nnunet_sfr.planning.mosaic import choose_canvas, choose_patch, choose_slice_axes, choose_stitching, data_extent
from nnunet_sfr.sam_models import MODELS, SAMModel

VIT_B, VIT_TINY, LITE_MEDSAM = MODELS["vit_b"], MODELS["vit_tiny"], MODELS["lite_medsam"]


def test_left_atrium_at_full_resolution_is_shown_whole() -> None:
    stitching = choose_stitching(VIT_B, (80, 112, 112), (80, 112, 112))
    assert stitching.patch_size == (80, 112, 112)
    assert stitching.canvas_size == 1024
    assert stitching.scale == (1.0, 1.0, 1.0)


def test_abdominal_ct_takes_about_the_papers_layout() -> None:
    """The paper: 96 slices of 96 x 96. A patch of 100 x 102 x 102 fills the same grid of 10 x 10."""
    stitching = choose_stitching(MODELS["vit_h"], (300, 512, 512), (128, 128, 128))
    assert stitching.patch_size == (100, 102, 102)


def test_anisotropic_data_keep_nnunets_proportions() -> None:
    stitching = choose_stitching(VIT_B, (20, 320, 320), (16, 320, 320))
    assert stitching.patch_size == (16, 256, 256)


def test_two_dimensional_configurations_take_the_depth_of_the_data() -> None:
    assert choose_stitching(VIT_B, (10, 200, 200), (192, 160)).patch_size == (10, 200, 200)
    # 1024 // 256 = 4: sixteen slices of 256 x 256; 30 : 256 : 256 asks for fewer slices, 12 more columns do not fit
    depth, height, width = choose_stitching(VIT_B, (30, 512, 512), (256, 256)).patch_size
    assert (depth, height, width) == (25, 204, 204)


def test_a_picture_is_one_slice() -> None:
    assert choose_stitching(VIT_B, (1, 700, 900), (512, 512)).patch_size == (1, 700, 900)


@pytest.mark.parametrize("model", [VIT_TINY, LITE_MEDSAM], ids=lambda model: model.name)
@pytest.mark.parametrize(
    ("extent", "canvas"),
    [((20, 24, 22), 128), ((1, 64, 64), 64), ((1, 65, 64), 128), ((22, 40, 58), 256), ((80, 112, 112), 512)],
)
def test_models_of_many_canvases_take_the_smallest_that_holds_everything(
    model: SAMModel, extent: Size, canvas: int
) -> None:
    assert choose_canvas(model, extent) == canvas
    smaller_holds = canvas > 64 and fits(extent, canvas - 64)
    assert not smaller_holds


@pytest.mark.parametrize(
    ("extent", "canvas"), [((1, 1, 1), 1024), ((80, 112, 112), 1024), ((300, 512, 512), 1024)], ids=str
)
def test_sams_own_models_have_one_canvas(extent: Size, canvas: int) -> None:
    assert choose_canvas(VIT_B, extent) == canvas


def test_what_no_canvas_holds_gets_the_largest() -> None:
    assert choose_canvas(LITE_MEDSAM, (300, 512, 512)) == 512


def test_enlarged_slices_get_a_larger_canvas_and_keep_the_whole_volume() -> None:
    """22 x 40 x 50 fits on 256 pixels; its slices twice as large, 80 x 100, fit on 448, 5 x 4, not; on 512, 6 x 5."""
    extent = (22, 40, 50)
    assert choose_stitching(LITE_MEDSAM, extent, extent).canvas_size == 256
    stitching = choose_stitching(LITE_MEDSAM, extent, extent, (1.0, 2.0, 2.0))
    assert stitching.patch_size == extent
    assert stitching.canvas_size == 512
    assert stitching.scale == (1.0, 2.0, 2.0)


def test_enlarged_slices_on_the_largest_canvas_are_fewer() -> None:
    """Of 224 x 224 pixels, 1024 hold 4 x 4; the patch keeps nnU-Net's proportions in voxels."""
    stitching = choose_stitching(VIT_B, (80, 112, 112), (80, 112, 112), (1.0, 2.0, 2.0))
    assert stitching.patch_size == (49, 73, 73)  # 7 x 7 tiles of 146; one voxel more, 148, leaves 6 x 6


def test_reduced_slices_show_more_of_the_volume() -> None:
    assert choose_patch((160, 112, 112), (80, 112, 112), 1024, (1.0, 0.5, 0.5)) == (160, 112, 112)
    assert choose_patch((160, 112, 112), (80, 112, 112), 1024) != (160, 112, 112)


def test_a_scale_that_no_voxel_survives_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"holds 0 x 0 slices of 600 x 600, but patch_size asks for 1 \(1 x 1 x 1 at"):
        choose_stitching(LITE_MEDSAM, (20, 24, 22), (20, 24, 22), (1.0, 600.0, 600.0))
    with pytest.raises(ValueError, match="scale needs three finite positive factors"):
        choose_stitching(LITE_MEDSAM, (20, 24, 22), (20, 24, 22), (1.0, float("nan"), 1.0))


EXTENTS: list[Size] = [
    (1, 1, 1),
    (5, 3, 900),
    (20, 24, 22),
    (20, 320, 320),
    (80, 112, 112),
    (155, 240, 240),
    (300, 512, 512),
    (1200, 40, 2000),
    (700, 1500, 1500),
]
PROPORTIONS: list[Size] = [(1, 1, 1), (128, 128, 128), (16, 320, 320), (256, 40, 96), (1, 512, 512)]


SCALES: list[Scale] = [(1.0, 1.0, 1.0), (1.0, 2.0, 2.0), (0.3, 1.5, 0.7)]


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("model", [VIT_B, LITE_MEDSAM], ids=lambda model: model.name)
@pytest.mark.parametrize(("extent", "proportions"), list(itertools.product(EXTENTS, PROPORTIONS)))
def test_every_choice_is_valid_and_cannot_grow(model: SAMModel, extent: Size, proportions: Size, scale: Scale) -> None:
    stitching = choose_stitching(model, extent, proportions, scale)
    patch, canvas = stitching.patch_size, stitching.canvas_size
    assert canvas in model.canvas.sizes
    assert fits(scaled_size(patch, scale), canvas)
    for axis in range(3):
        assert 1 <= patch[axis] <= extent[axis]
        depth, height, width = (length + (index == axis) for index, length in enumerate(patch))
        assert patch[axis] == extent[axis] or not fits(scaled_size((depth, height, width), scale), canvas)


def test_a_whole_volume_that_just_fits_is_not_cut() -> None:
    assert choose_patch((81, 113, 113), (10, 10, 10), 1024) == (81, 113, 113)
    assert choose_patch((82, 113, 113), (10, 10, 10), 1024) != (82, 113, 113)


def test_extent_is_the_largest_preprocessed_length_per_axis() -> None:
    """Axes are transposed before the target spacing (which is already transposed) is applied."""
    extent = data_extent(
        shapes=[(10, 20, 30), (12, 18, 28)],
        spacings=[(1.0, 2.0, 3.0), (1.0, 2.0, 3.5)],
        transpose_forward=(2, 0, 1),
        target_spacing=(3.0, 0.5, 2.0),
    )
    # slices: 30 * 3 / 3 and 28 * 3.5 / 3 = 32.67; height: 10 / 0.5 and 12 / 0.5; width: 20 and 18
    assert extent == (33, 24, 20)


def test_two_dimensional_extent_keeps_the_slices() -> None:
    extent = data_extent(
        shapes=[(10, 20, 30)], spacings=[(5.0, 1.0, 1.0)], transpose_forward=(0, 1, 2), target_spacing=(0.5, 2.0)
    )
    assert extent == (10, 40, 15)


@pytest.mark.parametrize(
    ("spacing", "transpose_forward", "axis"),
    [
        ((5.0, 0.8, 0.8), (0, 1, 2), 0),
        ((5.0, 0.8, 0.8), (1, 0, 2), 0),
        ((2.97, 2.93, 2.96), (1, 0, 2), 1),
        ((1.0, 1.0, 1.0), (2, 0, 1), 1),
        ((1.0, 1.0, 1.0), (0, 1, 2), 0),
        ((0.8, 0.8), (1, 0, 2), 0),
    ],
)
def test_thick_slices_are_kept_and_others_are_those_of_the_images(
    spacing: tuple[float, ...], transpose_forward: tuple[int, int, int], axis: int
) -> None:
    assert choose_slice_axes(spacing, transpose_forward) == (axis,)


def test_canvas_and_patch_follow_the_axis_of_the_slices() -> None:
    """90 x 28 x 102 voxels: 28 slices of 90 x 102 need 640 pixels, 90 of 28 x 102 would fill a canvas of 512."""
    stitching = choose_stitching(LITE_MEDSAM, (90, 28, 102), (48, 14, 56), slice_axes=(1,))
    assert stitching.slice_axes == (1,)
    assert stitching.canvas_size == 512
    depth, height, width = stitching.patch_size
    assert height <= (512 // depth) * (512 // width)
    assert choose_stitching(LITE_MEDSAM, (90, 28, 102), (48, 14, 56)).patch_size == (90, 28, 102)


def test_a_patch_fits_across_every_axis() -> None:
    """90 x 28 x 102 voxels fit across each axis on some canvas, but 28 slices of 90 x 102 on none up to 512."""
    stitching = choose_stitching(LITE_MEDSAM, (90, 28, 102), (48, 14, 56), slice_axes=(0, 1, 2))
    depth, height, width = stitching.patch_size
    for slices, (rows, columns) in ((depth, (height, width)), (height, (depth, width)), (width, (depth, height))):
        assert slices <= (512 // rows) * (512 // columns)
    assert stitching.patch_size == (90, 25, 100)


def test_a_batch_has_fewer_large_canvases() -> None:
    assert [LITE_MEDSAM.batch_size(4, canvas) for canvas in (64, 256, 320, 512)] == [4, 4, 2, 2]
    assert LITE_MEDSAM.batch_size(1, 512) == 1
    assert MODELS["vit_b"].batch_size(4, 1024) == 4
