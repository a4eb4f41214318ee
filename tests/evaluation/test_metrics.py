"""Every metric of one mask, and the rules for empty ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnunet_sfr.evaluation.metrics import Metrics, diagonal, measure
from tests.conftest import Golden
from tests.evaluation.golden_masks import golden_masks

SPACING = (3.0, 4.0, 12.0)
SHAPE = (4, 4, 4)
DISTANCES = ("hd95_mm", "asd_mm", "assd_mm")


def measured(prediction: Any, truth: Any, ignored: Any = None, shape: tuple[int, ...] = SHAPE) -> Metrics:
    """Masks that are True at the given index or indices."""
    masks = []
    for index in (prediction, truth, ignored):
        mask = np.zeros(shape, bool)
        if index is not None:
            mask[index] = True
        masks.append(mask)
    return measure(
        masks[0],
        masks[1],
        SPACING,
        voxel_ml=0.144,
        nsd_tolerance_mm=3.0,
        ignored=None if ignored is None else masks[2],
    )


def test_overlap_and_volumes_by_hand() -> None:
    """Six voxels of truth, four of prediction, two in both."""
    found = measured((slice(2, 4), slice(0, 2), 0), (slice(0, 3), slice(0, 2), 0))
    assert (found.tp, found.fp, found.fn) == (2, 2, 4)
    assert (found.dice, found.jaccard) == (0.4, 0.25)
    assert [found.truth_ml, found.prediction_ml] == pytest.approx([0.864, 0.576])
    # rows of 3 mm: the prediction's are at 0 and 3 mm from the truth, whose own are at 6, 3 and 0 mm
    assert (found.asd_mm, found.assd_mm, found.hd95_mm) == (1.5, 2.25, 6.0)
    assert found.nsd == pytest.approx((4 + 4) / 10)


def test_both_empty_is_undefined_and_has_counts() -> None:
    found = measured(None, None)
    assert all(math.isnan(getattr(found, name)) for name in ("dice", "jaccard", "nsd", *DISTANCES))
    assert (found.tp, found.fp, found.fn, found.truth_ml, found.prediction_ml) == (0, 0, 0, 0.0, 0.0)
    assert (found.is_both_empty, found.is_empty_prediction, found.is_empty_truth) == (True, False, False)


@pytest.mark.parametrize("empty", ["prediction", "truth"])
def test_one_empty_is_worse_than_anything_else(empty: str) -> None:
    voxel = (1, 2, 3)
    found = measured(voxel if empty == "truth" else None, voxel if empty == "prediction" else None)
    assert (found.dice, found.jaccard, found.nsd) == (0.0, 0.0, 0.0)
    assert {getattr(found, name) for name in DISTANCES} == {52.0}  # 4 voxels of 3, 4 and 12 mm: 12, 16, 48
    assert found.is_empty_prediction == (empty == "prediction")
    assert found.is_empty_truth == (empty == "truth")
    assert not found.is_both_empty
    farthest = measured((0, 0, 0), (3, 3, 3))
    assert farthest.dice == 0.0
    assert farthest.hd95_mm == pytest.approx(39.0)
    assert not any((farthest.is_empty_prediction, farthest.is_empty_truth, farthest.is_both_empty))
    assert all(getattr(found, name) > getattr(farthest, name) for name in DISTANCES)


def test_a_single_voxel_that_is_right() -> None:
    found = measured((1, 2, 3), (1, 2, 3))
    assert (found.dice, found.jaccard, found.nsd) == (1.0, 1.0, 1.0)
    assert (found.hd95_mm, found.asd_mm, found.assd_mm) == (0.0, 0.0, 0.0)


def test_ignored_voxels_do_not_count() -> None:
    """Of the prediction's two rows the wrong one is ignored, and of the truth's three the one that was missed."""
    ignored = ([0, 3], slice(None), slice(None))
    found = measured((slice(2, 4), slice(0, 2), 0), (slice(0, 3), slice(0, 2), 0), ignored)
    assert (found.tp, found.fp, found.fn) == (2, 0, 2)
    assert found.dice == pytest.approx(2 / 3)
    assert found.truth_ml == pytest.approx(4 * 0.144)
    gone = measured((3, 0, 0), (0, 0, 0), ignored)
    assert gone.is_both_empty


def test_masks_that_ignored_voxels_hide_have_overlap_and_no_distance() -> None:
    everything_else = np.ones(SHAPE, bool)
    everything_else[1, 1, 1:3] = False
    found = measured((1, 1, 1), (1, 1, slice(1, 3)), everything_else)
    assert found.dice == pytest.approx(2 / 3)
    assert math.isnan(found.hd95_mm)
    assert math.isnan(found.nsd)


def test_the_diagonal() -> None:
    assert diagonal((1, 2, 2), (3.0, 2.0, 6.0)) == 13.0


@pytest.mark.parametrize("case", ["eroded", "dilated", "shifted", "box", "border"])
def test_the_overlap_of_medpy(golden: Callable[[str], Golden], case: str) -> None:
    vectors = golden("metrics")
    prediction, truth = golden_masks(vectors, case)
    found = measure(prediction, truth, (1.0, 1.0, 1.0), voxel_ml=0.001, nsd_tolerance_mm=1.0)
    expected = vectors[f"{case}.dc_jc_hd95_asd"]
    np.testing.assert_allclose([found.dice, found.jaccard, found.hd95_mm, found.asd_mm], expected, rtol=0, atol=1e-6)
