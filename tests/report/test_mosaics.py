"""The mosaic of the report is the one that SAM sees."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.report.mosaics import SIDE, Stitching, draw_mosaic, patch_around, stitched
from nnunet_sfr.sam_stage.stitching import StitchGeometry

STITCHING = Stitching((4, 6, 5), 16)


def test_the_patch_is_centred_and_stays_inside() -> None:
    assert patch_around((10, 10, 10), (20, 20, 20), (4, 6, 5)) == (slice(8, 12), slice(7, 13), slice(8, 13))
    assert patch_around((0, 19, 1), (20, 20, 5), (4, 6, 5)) == (slice(0, 4), slice(14, 20), slice(0, 5))


def test_it_is_the_stitched_patch() -> None:
    image = np.arange(10 * 12 * 11, dtype=np.float32).reshape(10, 12, 11)
    labels = (image % 7 == 0).astype(np.int8)
    canvas, canvas_labels = stitched(image, labels, (5, 6, 5), STITCHING)
    geometry = StitchGeometry((4, 6, 5), 16)
    patch = (slice(3, 7), slice(3, 9), slice(3, 8))
    expected = geometry.stitch(torch.from_numpy(image[patch])[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(canvas, expected)
    back = geometry.unstitch(torch.from_numpy(canvas_labels)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(back, labels[patch])
    assert (canvas_labels == -1).sum() == 16 * 16 - 4 * 6 * 5


def test_a_small_volume_is_padded_as_for_prediction() -> None:
    image = np.ones((2, 6, 5), np.float32)
    canvas, canvas_labels = stitched(image, np.ones((2, 6, 5), np.int8), (1, 3, 2), STITCHING)
    assert canvas.sum() == canvas_labels.clip(0).sum() == 60
    # one slice of padding before, one after: tiles 1 and 2 of 2 x 2 are filled
    assert canvas[:8, 8:].sum() == canvas[8:, :8].sum() == 30


def test_a_patch_is_drawn_at_its_scale() -> None:
    """Half the slices, each twice as high: what SAM saw, with labels that stay labels."""
    image = np.arange(10 * 12 * 11, dtype=np.float32).reshape(10, 12, 11)
    labels = (image % 7 == 0).astype(np.int8)
    stitching = Stitching((4, 6, 5), 16, (0.5, 2.0, 1.0))
    canvas, canvas_labels = stitched(image, labels, (5, 6, 5), stitching)
    patch = (slice(3, 7), slice(3, 9), slice(3, 8))
    geometry = StitchGeometry((4, 6, 5), 16, (0.5, 2.0, 1.0))
    np.testing.assert_array_equal(canvas, geometry.stitch(torch.from_numpy(image[patch])[None, None])[0, 0].numpy())
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
    assert Stitching.of(scaled) == Stitching((4, 6, 5), 16, (0.5, 2.0, 1.0))
    assert Stitching.of(Provenance(source="sam", settings={"stitching": values})) == STITCHING, "of version 0.1"


def test_small_canvases_are_enlarged_by_whole_pixels() -> None:
    image = np.zeros((4, 6, 5), np.float32)
    labels = np.zeros((4, 6, 5), np.int8)
    labels[0] = 1
    picture = draw_mosaic(image, labels, (2, 3, 2), STITCHING, (-1.0, 1.0), {1: (255, 0, 0)})
    assert picture.shape == (SIDE, SIDE, 3)  # 48 pixels for each of the 16
    coloured = picture[..., 0] != picture[..., 1]
    assert coloured.sum() == 6 * 5 * 48 * 48
