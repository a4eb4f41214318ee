"""Every voxel has its own pixel, in the paper's order, and comes back from it; or is resampled on both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_sfr.canvas import Scale, Size, filled_share, scaled_size
from nnunet_sfr.sam_stage.stitching import StitchGeometry
from nnunet_sfr.settings import StitchingSettings

Golden = Callable[[str], Mapping[str, np.ndarray]]

UNEVEN = [
    ((1, 1, 1), 1),
    ((1, 7, 5), 7),
    ((2, 8, 8), 16),
    ((3, 5, 11), 32),
    ((5, 16, 16), 48),
    ((7, 16, 16), 64),
    ((9, 21, 21), 64),
    ((10, 6, 25), 64),
    ((12, 33, 9), 100),
    ((13, 4, 60), 64),
    ((16, 16, 16), 64),
    ((50, 40, 28), 256),
    ((49, 30, 20), 256),
    ((40, 28, 20), 256),
]


def numbered(geometry: StitchGeometry, batch: int = 1, channels: int = 1) -> Tensor:
    """A volume whose voxels all differ, and differ from the fill of 0."""
    shape = (batch, channels, *geometry.patch_size)
    return torch.arange(1, 1 + int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize(("patch_size", "canvas_size"), UNEVEN)
def test_unstitching_inverts_stitching(patch_size: tuple[int, int, int], canvas_size: int) -> None:
    geometry = StitchGeometry(patch_size, canvas_size)
    volume = numbered(geometry, batch=2, channels=3)
    canvas = geometry.stitch(volume)
    assert canvas.shape == (2, 3, canvas_size, canvas_size)
    assert torch.equal(geometry.unstitch(canvas), volume)
    assert int((canvas != 0).sum()) == volume.numel()
    assert filled_share(geometry.shown_size, geometry.canvas_size) == pytest.approx(volume.numel() / canvas.numel())


@pytest.mark.parametrize(("patch_size", "canvas_size"), UNEVEN)
def test_slices_lie_row_by_row_centred_and_upright(patch_size: tuple[int, int, int], canvas_size: int) -> None:
    geometry = StitchGeometry(patch_size, canvas_size)
    volume = numbered(geometry)
    canvas = geometry.stitch(volume)[0, 0]
    slices, height, width = patch_size
    for index in range(slices):
        row, column = divmod(index, geometry.columns)
        tile_height, tile_width = geometry.tile_height, geometry.tile_width
        top = row * tile_height + (tile_height - height) // 2
        left = column * tile_width + (tile_width - width) // 2
        assert torch.equal(canvas[top : top + height, left : left + width], volume[0, 0, index])


@pytest.mark.parametrize(
    ("patch_size", "canvas_size", "grid"),
    [
        ((80, 112, 112), 1024, (9, 9)),  # LA in the paper
        ((96, 96, 96), 1024, (10, 10)),  # abdominal CT in the paper
        ((64, 128, 128), 1024, (8, 8)),
        ((7, 16, 16), 256, (3, 3)),
        ((50, 40, 28), 256, (6, 9)),  # six rows are all that fit
        ((13, 4, 60), 64, (13, 1)),
    ],
)
def test_the_grid_is_the_squarest(patch_size: tuple[int, int, int], canvas_size: int, grid: tuple[int, int]) -> None:
    geometry = StitchGeometry(patch_size, canvas_size)
    assert (geometry.rows, geometry.columns) == grid


@pytest.mark.parametrize("case", ["la112", "la96", "s16", "s40x28"])
def test_official_canvas_shows_the_same_voxels(golden: Golden, case: str) -> None:
    """The authors transpose and centre otherwise: each of their pixels is looked up where our layout has its voxel."""
    arrays = golden("stitch")
    x, y, z = (torch.from_numpy(arrays[f"{case}.coord_{axis}"].astype(np.int64)) - 1 for axis in "xyz")
    shown = x >= 0
    if f"{case}.volume" in arrays:
        official = torch.from_numpy(arrays[f"{case}.stitched_image"])
        official_label = torch.from_numpy(arrays[f"{case}.stitched_label"].astype(np.int64))
        volume = torch.from_numpy(arrays[f"{case}.volume"]).permute(0, 1, 4, 2, 3)
        label = torch.from_numpy(arrays[f"{case}.label"].astype(np.int64)).permute(0, 3, 1, 2)
    else:  # of the paper's sizes only the authors' coordinates are kept
        volume = torch.randn(1, 1, *(int(axis.max()) + 1 for axis in (z, x, y)))
        label = (volume[:, 0] > 0).long()
        official = torch.where(shown, volume[0, 0, z, x, y], 0)[None]
        official_label = torch.where(shown, label[0, z, x, y], 255)[None]
    slices, height, width = volume.shape[2:]
    geometry = StitchGeometry((slices, height, width), official.shape[-1])

    pixel_of_voxel = torch.zeros(geometry.patch_size, dtype=torch.int64).flatten()
    placement = geometry.stitch(numbered(geometry)).flatten()
    filled = placement.nonzero()[:, 0]
    pixel_of_voxel[placement[filled] - 1] = filled

    assert int(shown.sum()) == slices * height * width, "not a lossless case: this test would skip voxels"
    pixels = pixel_of_voxel[(z[shown] * height + x[shown]) * width + y[shown]]
    canvas = geometry.stitch(volume)[:, 0].flatten(1)
    canvas_label = geometry.stitch_labels(label[:, None], fill=255).flatten(1)
    assert torch.equal(canvas[:, pixels], official[:, shown])
    assert torch.equal(canvas_label[:, pixels], official_label[:, shown])
    # The rest is fill on both canvases.
    assert int((canvas_label == 255).sum()) == int((official_label == 255).sum())


def test_labels_are_filled_with_the_ignore_value() -> None:
    geometry = StitchGeometry((3, 5, 5), 16)
    canvas = geometry.stitch_labels(torch.ones(2, 1, 3, 5, 5, dtype=torch.int64), fill=-1)
    assert canvas.shape == (2, 16, 16)
    assert canvas.dtype == torch.int64
    canvas = canvas[1]
    assert int((canvas == 1).sum()) == 75
    assert int((canvas == -1).sum()) == 16 * 16 - 75


def test_gradients_pass_through_unchanged() -> None:
    geometry = StitchGeometry((7, 9, 6), 40)
    volume = torch.randn(2, 2, 7, 9, 6, requires_grad=True)
    geometry.unstitch(geometry.stitch(volume)).sum().backward()
    assert volume.grad is not None
    assert torch.equal(volume.grad, torch.ones_like(volume))
    canvas = torch.randn(1, 1, 40, 40, requires_grad=True)
    geometry.unstitch(canvas).sum().backward()
    shown = geometry.stitch(torch.ones(1, 1, 7, 9, 6))
    assert canvas.grad is not None
    assert torch.equal(canvas.grad, shown)


def linear(size: Size, scale: Scale = (1.0, 1.0, 1.0)) -> Tensor:
    """x + 10 y + 100 z at the middles of voxels, counted in voxels of a grid that is ``scale`` times coarser."""
    z, y, x = (
        (torch.arange(length, dtype=torch.float64) + 0.5) / factor for length, factor in zip(size, scale, strict=True)
    )
    return (100 * z[:, None, None] + 10 * y[:, None] + x)[None, None]


@pytest.mark.parametrize(("patch_size", "canvas_size"), UNEVEN)
def test_what_keeps_its_size_is_not_resampled(patch_size: Size, canvas_size: int) -> None:
    """Bit by bit; integers, which cannot be interpolated, would fail."""
    geometry = StitchGeometry(patch_size, canvas_size, (1.0, 1.0, 1.0))
    volume = numbered(geometry)
    canvas = geometry.stitch(volume)
    assert torch.equal(canvas, StitchGeometry(patch_size, canvas_size).stitch(volume))
    assert torch.equal(geometry.stitch_labels(volume, fill=0), canvas[:, 0])
    assert torch.equal(geometry.unstitch(canvas), volume)


@pytest.mark.parametrize("scale", [(2.0, 2.0, 2.0), (1.0, 2.0, 2.0), (1.0, 0.5, 2.0), (0.5, 0.5, 0.5), (1.0, 1.5, 3.0)])
def test_a_linear_field_is_sampled_where_its_pixels_lie(scale: Scale) -> None:
    """And comes back, away from the borders of the patch, where half a voxel has to be guessed."""
    size = (8, 12, 16)
    geometry = StitchGeometry(size, 160, scale)
    canvas = geometry.stitch(linear(size))
    # the tiles, read by the layout that is not scaled
    shown = StitchGeometry(geometry.shown_size, 160).unstitch(canvas)
    z, y, x = (slice(math.ceil(factor / 2), -math.ceil(factor / 2)) for factor in scale)
    inner = (..., z, y, x)
    torch.testing.assert_close(shown[inner], linear(geometry.shown_size, scale)[inner], rtol=0, atol=1e-9)
    back = geometry.unstitch(canvas)
    assert back.shape == (1, 1, *size)
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(back[inner], linear(size)[inner], rtol=0, atol=1e-9)


def test_constants_come_back_exactly_up_to_the_border() -> None:
    geometry = StitchGeometry((3, 5, 7), 64, (2.0, 1.3, 0.6))
    canvas = geometry.stitch(torch.full((2, 3, 3, 5, 7), 4.0))
    assert int((canvas[0, 0] == 4).sum()) == 6 * 7 * 4  # 5 * 1.3 = 6.5 and 7 * 0.6 = 4.2
    assert int((canvas[0, 0] == 0).sum()) == 64 * 64 - 6 * 7 * 4
    assert filled_share(geometry.shown_size, geometry.canvas_size) == 6 * 7 * 4 / 64**2
    assert torch.equal(geometry.unstitch(canvas), torch.full((2, 3, 3, 5, 7), 4.0))


def test_twice_the_size_and_back_smooths_by_an_eighth() -> None:
    """Twofold, pixels lie a quarter of a voxel beside the middles: 3/4 and 1/4; back, the mean of two such pixels."""
    geometry = StitchGeometry((1, 1, 5), 10, (1.0, 1.0, 2.0))
    impulse = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 1, 5)
    canvas = geometry.stitch(impulse)
    assert canvas[0, 0, 4].tolist() == [0, 0, 0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0]
    assert geometry.unstitch(canvas).flatten().tolist() == [0, 0.125, 0.75, 0.125, 0]


def test_slices_are_not_mixed_with_their_neighbours_on_the_canvas() -> None:
    """Every slice is resampled before it is laid down: its value reaches its tile's edges, and no other tile."""
    geometry = StitchGeometry((4, 3, 3), 16, (1.0, 8 / 3, 8 / 3))
    volume = torch.arange(1.0, 5.0).reshape(1, 1, 4, 1, 1).expand(1, 1, 4, 3, 3)
    canvas = geometry.stitch(volume)[0, 0]
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    assert torch.equal(canvas, expected)


@pytest.mark.parametrize(
    "scale", [(2.0, 2.0, 2.0), (1.0, 3.0, 2.0), (0.5, 1.0, 1.5), (1.0, 0.5, 0.5), (4 / 3, 0.7, 1.1)]
)
def test_a_pixel_has_the_label_of_the_voxel_that_it_lies_in(scale: Scale) -> None:
    size = (6, 9, 10)
    geometry = StitchGeometry(size, 128, scale)
    labels = numbered(geometry) - 1
    canvas = geometry.stitch_labels(labels, fill=-1)
    assert canvas.dtype == torch.int64
    shown = StitchGeometry(geometry.shown_size, 128).unstitch(canvas[:, None])[0, 0]
    z, y, x = (
        torch.tensor([(2 * i + 1) * voxels // (2 * pixels) for i in range(pixels)])
        for voxels, pixels in zip(size, geometry.shown_size, strict=True)
    )
    assert torch.equal(shown, labels[0, 0][z][:, y][:, :, x])
    assert int((canvas == -1).sum()) == 128**2 - shown.numel()


def test_labels_lie_on_the_intensities_that_they_name() -> None:
    """Of a half space both agree at every pixel: neither is shifted against the other."""
    for voxels, factor in ((8, 2.0), (8, 3.0), (9, 5 / 3), (16, 0.5), (12, 0.75)):
        geometry = StitchGeometry((1, voxels, voxels), 32, (1.0, factor, factor))
        above = (torch.arange(voxels) >= voxels // 2).expand(1, 1, 1, voxels, voxels)
        intensities = geometry.stitch(above.double(), fill=-1)[0, 0]
        labels = geometry.stitch_labels(above.long(), fill=-1)[0]
        shown = labels >= 0
        decided = shown & ((intensities - 0.5).abs() > 1e-6)
        assert int(shown.sum()) == geometry.shown_size[1] ** 2
        assert int(decided.sum()) >= 0.8 * int(shown.sum())
        assert torch.equal(intensities[decided] > 0.5, labels[decided] == 1)


def test_gradients_pass_through_the_resampling() -> None:
    """Weights of linear interpolation sum to one for every value that is read."""
    geometry = StitchGeometry((3, 4, 5), 32, (2.0, 1.5, 2.0))
    canvas = torch.randn(1, 2, 32, 32, requires_grad=True)
    geometry.unstitch(canvas).sum().backward()
    assert canvas.grad is not None
    assert float(canvas.grad.sum()) == pytest.approx(2 * 3 * 4 * 5, rel=1e-5)
    assert torch.equal(canvas.grad[0, 0] != 0, geometry.stitch(torch.ones(1, 1, 3, 4, 5))[0, 0] != 0)


@pytest.mark.parametrize(("height", "width", "shown"), [(112, 112, (1, 1024, 1024)), (240, 155, (1, 1024, 661))])
def test_the_papers_upsampling_is_one_slice_as_large_as_the_canvas(height: int, width: int, shown: Size) -> None:
    factor = 1024 / max(height, width)
    settings = StitchingSettings(patch_size=(1, height, width), canvas_size=1024, scale=(1.0, factor, factor))
    geometry = StitchGeometry(settings.patch_size, settings.canvas_size, settings.scale)
    assert geometry.shown_size == shown
    assert geometry.grid == (1, 1)
    assert geometry.unstitch(torch.zeros(1, 2, 1024, 1024)).shape == (1, 2, 1, height, width)


def test_the_papers_small_input_is_one_slice_on_a_canvas_of_its_size() -> None:
    settings = StitchingSettings(patch_size=(1, 112, 112), canvas_size=112)
    geometry = StitchGeometry(settings.patch_size, settings.canvas_size, settings.scale)
    volume = torch.randn(1, 1, 1, 112, 112)
    assert torch.equal(geometry.stitch(volume)[:, :, None], volume)
    assert filled_share(geometry.shown_size, geometry.canvas_size) == 1


@pytest.mark.parametrize("depth", [1, 7, 65, 80, 88, 95, 96])
def test_the_papers_uniform_patch_is_96_slices_deep_whatever_its_depth(depth: int) -> None:
    settings = StitchingSettings(patch_size=(depth, 96, 96), canvas_size=1024, scale=(96 / depth, 1.0, 1.0))
    geometry = StitchGeometry(settings.patch_size, settings.canvas_size, settings.scale)
    assert geometry.shown_size == (96, 96, 96)
    assert geometry.grid == (10, 10)


def test_the_papers_scale_sweep_shows_slices_smaller_than_they_are() -> None:
    """Fig. 9: LA's 80 slices of 112 x 112 fill 9 x 9 tiles of 113; 12 x 12 tiles have 85 pixels."""
    geometry = StitchGeometry((144, 112, 112), 1024, (1.0, 85 / 112, 85 / 112))
    assert geometry.shown_size == (144, 85, 85)
    assert geometry.grid == (12, 12)


@pytest.mark.parametrize(
    ("length", "factor", "expected"),
    [
        (5, 0.5, 3),
        (3, 0.5, 2),
        (35, 0.7, 25),
        (10, 0.04, 1),
        (1, 0.001, 1),
        (7, 1.0, 7),
        (80, 1.2, 96),
        (65, 96 / 65, 96),
    ],
)
def test_scaled_lengths_are_rounded_with_halves_up(length: int, factor: float, expected: int) -> None:
    assert scaled_size((length, length, 1), (factor, 1.0, factor)) == (expected, length, max(1, int(factor + 0.5)))


@pytest.mark.parametrize(
    ("patch_size", "canvas_size", "message"),
    [
        ((128, 128, 128), 1024, "holds 8 x 8 slices"),  # the authors' code would drop half of them
        ((65, 128, 128), 1024, "patch_size asks for 65; take a smaller patch, or"),
        ((1, 65, 10), 64, "holds 0 x 6 slices"),
        ((0, 8, 8), 64, "three positive numbers"),
        ((8, 8), 64, "three positive numbers"),
    ],
)
def test_what_does_not_fit_is_refused(patch_size: tuple[int, int, int], canvas_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StitchGeometry(patch_size, canvas_size)


@pytest.mark.parametrize(
    ("patch_size", "canvas_size", "scale", "message"),
    [
        (
            (80, 112, 112),
            1024,
            (1.0, 2.0, 2.0),
            "a canvas of 1024 pixels holds 4 x 4 slices of 224 x 224, but patch_size asks for 80 "
            "(80 x 112 x 112 at scale 1 x 2 x 2); take a smaller patch or scale, or a larger canvas",
        ),
        ((1, 8, 8), 64, (0.0, 1.0, 1.0), "scale needs three finite positive factors, got (0.0, 1.0, 1.0)"),
        ((1, 8, 8), 64, (1.0, -1.0, 1.0), "scale needs three finite positive factors"),
        ((1, 8, 8), 64, (1.0, float("nan"), 1.0), "scale needs three finite positive factors"),
        ((1, 8, 8), 64, (1.0, 1.0, float("inf")), "scale needs three finite positive factors"),
        ((1, 8, 8), 64, (1e308, 1.0, 1.0), "at scale 1e+308 x 1 x 1); take a smaller patch or scale"),
        ((1, 8, 8), -64, (1.0, 1.0, 1.0), "canvas_size must be at least 1, got -64"),
        ((65, 128, 128), 1024, (1.0, 1.0, 1.0), "asks for 65; take a smaller patch, or a larger canvas"),
    ],
)
def test_settings_and_geometry_refuse_in_the_same_words(
    patch_size: Size, canvas_size: int, scale: Scale, message: str
) -> None:
    for refusing in (
        lambda: StitchGeometry(patch_size, canvas_size, scale),
        lambda: StitchingSettings(patch_size=patch_size, canvas_size=canvas_size, scale=scale),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            refusing()
        assert message in str(caught.value)


def test_other_shapes_are_refused() -> None:
    geometry = StitchGeometry((4, 8, 8), 32)
    with pytest.raises(ValueError, match=r"\[B, C, 4, 8, 8\]"):
        geometry.stitch(torch.zeros(1, 1, 8, 8, 4))
    with pytest.raises(ValueError, match=r"\[B, K, 32, 32\]"):
        geometry.unstitch(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"labels \[B, 1, 4, 8, 8\]"):
        geometry.stitch_labels(torch.zeros(1, 2, 4, 8, 8, dtype=torch.int64), fill=-1)
    with pytest.raises(ValueError, match=r"\[B, C, 4, 8, 8\]"):
        geometry.stitch_labels(torch.zeros(1, 4, 8, 8, dtype=torch.int64), fill=-1)


@pytest.mark.parametrize("slice_axis", [1, 2])
@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_slices_across_another_axis(slice_axis: int, scale: tuple[float, float, float]) -> None:
    """The same as a volume whose axes are moved, and back by the same way; labels too."""
    torch.manual_seed(0)
    patch = (6, 7, 9)
    moved = [patch[slice_axis], *(length for axis, length in enumerate(patch) if axis != slice_axis)]
    moved_scale = [scale[slice_axis], *(factor for axis, factor in enumerate(scale) if axis != slice_axis)]
    geometry = StitchGeometry(patch, 64, scale, slice_axis)
    reference = StitchGeometry((moved[0], moved[1], moved[2]), 64, (moved_scale[0], moved_scale[1], moved_scale[2]))
    volume = torch.randn(2, 3, *patch, dtype=torch.float64)
    canvas = geometry.stitch(volume, fill=5)
    torch.testing.assert_close(canvas, reference.stitch(volume.movedim(2 + slice_axis, 2), fill=5))
    labels = torch.randint(0, 4, (2, 1, *patch))
    stitched = geometry.stitch_labels(labels, fill=-1)
    assert torch.equal(stitched, reference.stitch_labels(labels.movedim(2 + slice_axis, 2), fill=-1))
    if scale == (1.0, 1.0, 1.0):
        assert torch.equal(geometry.unstitch(canvas), volume)
    assert geometry.unstitch(canvas).shape == volume.shape


def test_an_axis_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="slice_axis must be 0, 1 or 2, got 3"):
        StitchGeometry((6, 7, 9), 64, slice_axis=3)
