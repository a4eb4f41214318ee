"""The rules that choose canvas and patch: named examples, and what must hold for every input."""

from __future__ import annotations

import itertools

import pytest

from nnunet_sfr.planning.mosaic import Extent, choose_canvas, choose_patch, choose_stitching, data_extent, fits
from nnunet_sfr.settings import SAM_MODELS


def test_left_atrium_at_full_resolution_is_shown_whole() -> None:
    stitching = choose_stitching("vit_b", (80, 112, 112), (80, 112, 112))
    assert stitching.patch_size == (80, 112, 112)
    assert stitching.canvas_size == 1024


def test_abdominal_ct_takes_about_the_papers_layout() -> None:
    """The paper: 96 slices of 96 x 96. A patch of 100 x 102 x 102 fills the same grid of 10 x 10."""
    stitching = choose_stitching("vit_h", (300, 512, 512), (128, 128, 128))
    assert stitching.patch_size == (100, 102, 102)


def test_anisotropic_data_keep_nnunets_proportions() -> None:
    stitching = choose_stitching("vit_b", (20, 320, 320), (16, 320, 320))
    assert stitching.patch_size == (16, 256, 256)


def test_two_dimensional_configurations_take_the_depth_of_the_data() -> None:
    assert choose_stitching("vit_b", (10, 200, 200), (192, 160)).patch_size == (10, 200, 200)
    # 1024 // 256 = 4: sixteen slices of 256 x 256; 30 : 256 : 256 asks for fewer slices, 12 more columns do not fit
    depth, height, width = choose_stitching("vit_b", (30, 512, 512), (256, 256)).patch_size
    assert (depth, height, width) == (25, 204, 204)


def test_a_picture_is_one_slice() -> None:
    assert choose_stitching("vit_b", (1, 700, 900), (512, 512)).patch_size == (1, 700, 900)


@pytest.mark.parametrize(
    ("extent", "canvas"),
    [((20, 24, 22), 128), ((1, 64, 64), 64), ((1, 65, 64), 128), ((22, 40, 58), 256), ((80, 112, 112), 512)],
)
def test_vit_tiny_takes_the_smallest_canvas_that_holds_everything(extent: Extent, canvas: int) -> None:
    assert choose_canvas("vit_tiny", extent) == canvas
    smaller_holds = canvas > 64 and fits(extent, canvas - 64)
    assert not smaller_holds


EXTENTS: list[Extent] = [
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
PROPORTIONS: list[Extent] = [(1, 1, 1), (128, 128, 128), (16, 320, 320), (256, 40, 96), (1, 512, 512)]


@pytest.mark.parametrize("model", SAM_MODELS)
@pytest.mark.parametrize(("extent", "proportions"), list(itertools.product(EXTENTS, PROPORTIONS)))
def test_every_choice_is_valid_and_cannot_grow(model: str, extent: Extent, proportions: Extent) -> None:
    stitching = choose_stitching(model, extent, proportions)
    patch, canvas = stitching.patch_size, stitching.canvas_size
    assert fits(patch, canvas)
    for axis in range(3):
        assert 1 <= patch[axis] <= extent[axis]
        depth, height, width = (length + (index == axis) for index, length in enumerate(patch))
        assert patch[axis] == extent[axis] or not fits((depth, height, width), canvas)


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
