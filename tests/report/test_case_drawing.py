"""What only the volumes themselves can tell."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_sfr.report.case_drawing import THUMBNAIL, disagreement, thumbnail


def test_disagreement_is_one_minus_the_mean_dice() -> None:
    ours, theirs = np.zeros((2, 6, 9), np.int8), np.zeros((2, 6, 9), np.int8)
    ours[0, :4, :5] = 1  # 20 voxels
    theirs[0, :2, :5] = 1  # 10 of them: Dice 20 / 30
    ours[1, 3, 2:6] = 2
    theirs[1, 3, 4:8] = 2  # 2 of 4 and 4: Dice 1 / 2
    ours[:, 5] = -1  # outside the mask
    assert disagreement(ours, theirs, 4) == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)
    assert disagreement(ours, ours, 4) == 0


def test_to_find_nothing_is_to_agree_with_nothing_alone() -> None:
    empty, found = np.full((3, 3, 3), -1, np.int8), np.zeros((3, 3, 3), np.int8)
    found[1, 1, 1] = 1
    assert disagreement(empty, np.zeros_like(found), 2) == 0
    assert disagreement(empty, found, 2) == 1


def test_products_of_thumbnails_are_correlations() -> None:
    image = np.random.default_rng(0).normal(size=(12, 18, 6)).astype(np.float32)
    one = np.array(thumbnail(image))
    assert one.shape == (THUMBNAIL**3,)
    assert one @ one == pytest.approx(1, abs=1e-3)
    assert one @ np.array(thumbnail(3 * image + 7)) == pytest.approx(1, abs=1e-3)
    assert one @ np.array(thumbnail(-image)) == pytest.approx(-1, abs=1e-3)
    blocks = image.reshape(6, 2, 6, 3, 6, 1).mean(axis=(1, 3, 5)).ravel()
    other = np.random.default_rng(1).normal(size=(6, 6, 6)).astype(np.float32)
    expected = np.corrcoef(blocks, other.ravel())[0, 1]
    assert one @ np.array(thumbnail(other)) == pytest.approx(expected, abs=2e-3)
    assert not any(thumbnail(np.full((1, 4, 4), 5.0)))
