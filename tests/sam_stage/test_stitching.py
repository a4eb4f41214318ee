"""Every voxel has its own pixel, in the paper's order, and comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_sfr.sam_stage.stitching import StitchGeometry

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
    assert geometry.filled_share == pytest.approx(volume.numel() / canvas.numel())


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
    official = torch.from_numpy(arrays[f"{case}.stitched_image"])
    official_label = torch.from_numpy(arrays[f"{case}.stitched_label"].astype(np.int64))
    volume = torch.from_numpy(arrays[f"{case}.volume"]).permute(0, 1, 4, 2, 3)
    label = torch.from_numpy(arrays[f"{case}.label"].astype(np.int64)).permute(0, 3, 1, 2)
    slices, height, width = volume.shape[2:]
    geometry = StitchGeometry((slices, height, width), official.shape[-1])

    pixel_of_voxel = torch.zeros(geometry.patch_size, dtype=torch.int64).flatten()
    placement = geometry.stitch(numbered(geometry)).flatten()
    filled = placement.nonzero()[:, 0]
    pixel_of_voxel[placement[filled] - 1] = filled

    x, y, z = (torch.from_numpy(arrays[f"{case}.coord_{axis}"].astype(np.int64)) - 1 for axis in "xyz")
    shown = x >= 0
    assert int(shown.sum()) == slices * height * width, "not a lossless case: this test would skip voxels"
    pixels = pixel_of_voxel[(z[shown] * height + x[shown]) * width + y[shown]]
    canvas = geometry.stitch(volume)[:, 0].flatten(1)
    canvas_label = geometry.stitch(label[:, None], fill=255)[:, 0].flatten(1)
    assert torch.equal(canvas[:, pixels], official[:, shown])
    assert torch.equal(canvas_label[:, pixels], official_label[:, shown])
    # The rest is fill on both canvases.
    assert int((canvas_label == 255).sum()) == int((official_label == 255).sum())


def test_labels_are_filled_with_the_ignore_value() -> None:
    geometry = StitchGeometry((3, 5, 5), 16)
    canvas = geometry.stitch(torch.ones(1, 1, 3, 5, 5, dtype=torch.int64), fill=-1)
    assert canvas.dtype == torch.int64
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


@pytest.mark.parametrize(
    ("patch_size", "canvas_size", "message"),
    [
        ((128, 128, 128), 1024, "holds 8 x 8 slices"),  # the authors' code would drop half of them
        ((65, 128, 128), 1024, "the patch has 65"),
        ((1, 65, 10), 64, "holds 0 x 6 slices"),
        ((0, 8, 8), 64, "three positive numbers"),
        ((8, 8), 64, "three positive numbers"),
    ],
)
def test_what_does_not_fit_is_refused(patch_size: tuple[int, int, int], canvas_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StitchGeometry(patch_size, canvas_size)


def test_other_shapes_are_refused() -> None:
    geometry = StitchGeometry((4, 8, 8), 32)
    with pytest.raises(ValueError, match=r"\[B, C, 4, 8, 8\]"):
        geometry.stitch(torch.zeros(1, 1, 8, 8, 4))
    with pytest.raises(ValueError, match=r"\[B, K, 32, 32\]"):
        geometry.unstitch(torch.zeros(1, 1, 16, 16))
