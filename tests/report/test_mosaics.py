"""The mosaic of the report is the one that SAM sees."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.report.mosaics import SIDE, draw_mosaic, geometry_of_labels, patch_around, stitched, turned
from nnunet_sfr.report.orientation import UNKNOWN_ORIENTATION, Orientation
from nnunet_sfr.sam_stage.stitching import StitchGeometry

GEOMETRY = StitchGeometry((4, 6, 5), 16)


def test_the_patch_is_centred_and_stays_inside() -> None:
    assert patch_around((10, 10, 10), (20, 20, 20), (4, 6, 5)) == (slice(8, 12), slice(7, 13), slice(8, 13))
    assert patch_around((0, 19, 1), (20, 20, 5), (4, 6, 5)) == (slice(0, 4), slice(14, 20), slice(0, 5))


def test_it_is_the_stitched_patch() -> None:
    image = np.arange(10 * 12 * 11, dtype=np.float32).reshape(10, 12, 11)
    labels = (image % 7 == 0).astype(np.int8)
    canvas, canvas_labels = stitched(image, labels, (5, 6, 5), GEOMETRY)
    geometry = GEOMETRY
    patch = (slice(3, 7), slice(3, 9), slice(3, 8))
    expected = geometry.stitch(torch.from_numpy(image[patch])[None, None], np.nan)[0, 0].numpy()
    np.testing.assert_array_equal(canvas, expected)
    back = geometry.unstitch(torch.from_numpy(canvas_labels)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(back, labels[patch])
    assert (canvas_labels == -1).sum() == 16 * 16 - 4 * 6 * 5


def test_a_small_volume_is_padded_as_for_prediction() -> None:
    image = np.ones((2, 6, 5), np.float32)
    canvas, canvas_labels = stitched(image, np.ones((2, 6, 5), np.int8), (1, 3, 2), GEOMETRY)
    assert np.nansum(canvas) == canvas_labels.clip(0).sum() == 60
    # one slice of padding before, one after: tiles 1 and 2 of 2 x 2 are filled
    assert np.nansum(canvas[:8, 8:]) == np.nansum(canvas[8:, :8]) == 30
    assert np.isnan(canvas[:8, :8]).all()


def test_a_patch_is_drawn_at_its_scale() -> None:
    """Half the slices, each twice as high: what SAM saw, with labels that stay labels."""
    image = np.arange(10 * 12 * 11, dtype=np.float32).reshape(10, 12, 11)
    labels = (image % 7 == 0).astype(np.int8)
    stitching = StitchGeometry((4, 6, 5), 16, (0.5, 2.0, 1.0))
    canvas, canvas_labels = stitched(image, labels, (5, 6, 5), stitching)
    patch = (slice(3, 7), slice(3, 9), slice(3, 8))
    geometry = StitchGeometry((4, 6, 5), 16, (0.5, 2.0, 1.0))
    expected = geometry.stitch(torch.from_numpy(image[patch])[None, None], np.nan)[0, 0].numpy()
    np.testing.assert_array_equal(canvas, expected)
    assert (canvas_labels == -1).sum() == 16 * 16 - 2 * 12 * 5
    assert set(np.unique(canvas_labels)) == {-1, 0, 1}
    # a line of pixels along the height is drawn over two of them
    block = np.zeros((4, 6, 5), np.int8)
    block[:, 2, :] = 1
    _, drawn = stitched(np.zeros((4, 6, 5), np.float32), block, (2, 3, 2), stitching)
    assert (drawn == 1).sum() == 2 * 2 * 5


def test_a_manifest_says_the_scale() -> None:
    values = {"patch_size": [4, 6, 5], "canvas_size": 16}
    scaled = Provenance(source="sam", settings={"stitching": {**values, "scale": [0.5, 2.0, 1.0]}})
    assert geometry_of_labels(scaled) == StitchGeometry((4, 6, 5), 16, (0.5, 2.0, 1.0))
    assert geometry_of_labels(Provenance(source="sam", settings={"stitching": values})) == GEOMETRY, "of version 0.1"


def test_small_canvases_are_enlarged_by_whole_pixels() -> None:
    image = np.zeros((4, 6, 5), np.float32)
    labels = np.zeros((4, 6, 5), np.int8)
    labels[0] = 1
    picture, overlay = draw_mosaic(
        image, labels, (2, 3, 2), GEOMETRY, UNKNOWN_ORIENTATION, (-1.0, 1.0), {1: (255, 0, 0)}
    )
    assert picture.shape == (SIDE, SIDE)  # 48 pixels for each of the 16
    assert (overlay[..., 3] > 0).sum() == 6 * 5 * 48 * 48
    assert (picture == 128).sum() == 4 * 6 * 5 * 48 * 48
    assert (picture == 0).sum() == SIDE * SIDE - (picture == 128).sum(), "where no voxel is shown, it is black"


def test_slices_are_the_same_way_up_as_the_planes() -> None:
    """A volume that is stored from the left, from behind and from above is drawn as one that is not."""
    upright = np.random.default_rng(0).random((6, 8, 7)).astype(np.float32)  # inferior, anterior and right first
    for slice_axis in range(3):
        stitching = StitchGeometry((6, 8, 7), 24, slice_axis=slice_axis)
        one, _ = draw_mosaic(upright, np.zeros((6, 8, 7), np.int8), (3, 4, 3), stitching, Orientation(), (0, 1), {})
        stored = upright[::-1, ::-1, ::-1].transpose(2, 0, 1)
        orientation = Orientation((2, 0, 1), (-1, -1, -1))
        np.testing.assert_array_equal(orientation.turn(stored), upright)
        axis = {0: 1, 1: 2, 2: 0}[slice_axis]
        other, _ = draw_mosaic(
            stored,
            np.zeros(stored.shape, np.int8),
            (3, 2, 3),
            StitchGeometry((7, 6, 8), 24, slice_axis=axis),
            orientation,
            (0, 1),
            {},
        )
        np.testing.assert_array_equal(other, one)
    assert turned(StitchGeometry((7, 6, 8), 96, (1.0, 2.0, 3.0), 0), orientation) == StitchGeometry(
        (6, 8, 7), 96, (2.0, 3.0, 1.0), 2
    )


def test_the_head_is_up_and_the_front_is_up() -> None:
    for slice_axis, bright in ((0, (slice(None), 0, slice(None))), (1, (5, slice(None), slice(None)))):
        image = np.zeros((6, 6, 6), np.float32)
        image[bright] = 1.0
        picture, _ = draw_mosaic(
            image,
            np.zeros((6, 6, 6), np.int8),
            (3, 3, 3),
            StitchGeometry((6, 6, 6), 18, slice_axis=slice_axis),
            UNKNOWN_ORIENTATION,
            (0, 1),
            {},
        )
        tile = picture[: SIDE // 3, : SIDE // 3]
        assert (tile[: SIDE // 18 - 1, : SIDE // 3 - 3] == 255).all(), slice_axis
        assert tile[SIDE // 18 + 2 :].max() == 0, slice_axis
