"""Surface distances against cubes that can be counted by hand, and against medpy's values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray

from nnunet_sfr.evaluation.surfaces import SurfaceDistances, surface_distances
from tests.conftest import Golden
from tests.evaluation.golden_masks import golden_masks

Mask = NDArray[np.bool_]


def mask_of(shape: tuple[int, ...], *parts: tuple[int | slice, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for part in parts:
        mask[part] = True
    return mask


def between(prediction: Mask, truth: Mask, spacing: tuple[float, ...], ignored: Mask | None = None) -> SurfaceDistances:
    found = surface_distances(prediction, truth, spacing, ignored=ignored)
    assert found is not None
    return found


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_moved_by_two_voxels_of_three_millimetres(axis: int) -> None:
    """A cube of 4 voxels has a surface of 56: 16 at each end of the axis, rings of 12 in the two layers between.

    From the moved cube's surface to the other's: 24 ring voxels of two layers lie on it; the inside (4) of its first
    layer is 1 mm from a ring; the third layer (12) is 3 mm behind the other's last one, and the fourth (16) 6 mm.
    """
    spacing = tuple(3.0 if other == axis else 1.0 for other in range(3))
    truth = mask_of((12, 12, 12), (slice(2, 6),) * 3)
    found = between(np.roll(truth, 2, axis), truth, spacing)
    values, counts = np.unique(found.prediction_to_truth, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0.0: 24, 1.0: 4, 3.0: 12, 6.0: 16}
    assert found.asd == pytest.approx((4 * 1 + 12 * 3 + 16 * 6) / 56)
    assert found.assd == pytest.approx(found.asd)  # the two cubes see each other alike
    assert found.hd95 == 6.0
    for tolerance, near in ((0.0, 24), (0.99, 24), (1.0, 28), (3.0, 40), (5.9, 40), (6.0, 56)):
        assert found.nsd(tolerance) == pytest.approx(near / 56)


def test_one_direction_of_two() -> None:
    """Distances 0 and 10 one way and 0 the other: ASD is the prediction's, 95HD is of all three together."""
    truth, prediction = mask_of((1, 20), (0, 3)), mask_of((1, 20), (0, 3), (0, 8))
    found = between(prediction, truth, (1.0, 2.0))
    assert (found.asd, found.assd) == (5.0, 2.5)
    assert found.hd95 == pytest.approx(9.0)  # of (0, 0, 10), 1.9 steps up; the directions alone have 9.5 and 0
    back = between(truth, prediction, (1.0, 2.0))
    assert (back.asd, back.assd) == (0.0, 2.5)
    assert back.hd95 == pytest.approx(9.0)


def test_single_voxels_with_three_spacings() -> None:
    truth, prediction = mask_of((9, 9, 9), (1, 1, 1)), mask_of((9, 9, 9), (3, 4, 7))
    found = between(prediction, truth, (5.0, 2.0, 0.5))
    expected = np.sqrt(10**2 + 6**2 + 3**2)
    np.testing.assert_allclose([found.hd95, found.asd, found.assd], expected, rtol=1e-6)
    assert between(truth, truth, (5.0, 2.0, 0.5)).hd95 == 0.0


def test_the_border_of_the_image_is_surface() -> None:
    """A truth that fills the image has the image's outer layer as its surface, 1 voxel around the prediction's."""
    truth, prediction = np.ones((5, 5, 5), bool), mask_of((5, 5, 5), (slice(1, 4),) * 3)
    found = between(prediction, truth, (2.0, 2.0, 2.0))
    assert (len(found.prediction_to_truth), len(found.truth_to_prediction)) == (27 - 1, 125 - 27)
    assert set(found.prediction_to_truth) == {2.0}


def test_a_tolerance_of_three_voxels_holds_three_voxels() -> None:
    """3 * 0.7 is 2.0999... in double precision and in single something else."""
    truth, prediction = mask_of((1, 9), (0, 1)), mask_of((1, 9), (0, 4))
    for step in (0.7, 0.1, 0.9375, 1.1):
        found = between(prediction, truth, (1.0, step))
        assert found.nsd(3 * step) == found.nsd(round(3 * step, 4)) == 1.0
        assert found.nsd(2.99 * step) == 0.0


@pytest.mark.parametrize("shape", [(14, 18, 16), (30, 26)])
def test_the_box_around_the_masks_gives_what_the_whole_image_gives(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    inner = tuple(slice(0, length // 2) for length in shape)  # touches three borders and leaves most of the image empty
    truth, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    truth[inner], prediction[inner] = rng.random(truth[inner].shape) < 0.6, rng.random(truth[inner].shape) < 0.6
    spacing = (2.5, 1.0, 0.7)[: len(shape)]
    of_prediction, of_truth = get_mask_edges(prediction, truth, crop=False)
    found = between(prediction, truth, spacing)
    whole = get_surface_distance(of_prediction, of_truth, spacing=spacing)
    np.testing.assert_array_equal(found.prediction_to_truth, np.asarray(whole))
    back = get_surface_distance(of_truth, of_prediction, spacing=spacing)
    np.testing.assert_array_equal(found.truth_to_prediction, np.asarray(back))


def test_where_masks_meet_ignored_voxels_they_have_no_surface() -> None:
    """Six rows; the truth has columns 0 to 3, the prediction 2 and 3, and what lies beyond is unknown.

    Surface of the truth are column 0 and the first and last row; of the prediction column 2, and the first and last row
    of column 3. Without the rule, all of column 3 would be surface of both, at distance 0.
    """
    truth, prediction = mask_of((6, 10), (slice(None), slice(0, 4))), mask_of((6, 10), (slice(None), slice(2, 4)))
    ignored = mask_of((6, 10), (slice(None), slice(4, 10)))
    found = between(prediction, truth, (1.0, 1.0), ignored)
    assert (len(found.truth_to_prediction), len(found.prediction_to_truth)) == (6 + 2 * 3, 6 + 2)
    assert between(prediction, truth, (1.0, 1.0)).asd < found.asd


def test_a_surface_that_is_all_hidden_has_no_distance() -> None:
    truth = mask_of((5, 5, 5), (2, 2, 2))
    assert surface_distances(truth, truth, (1.0, 1.0, 1.0), ignored=~truth) is None


@pytest.mark.parametrize("case", ["eroded", "dilated", "shifted", "box", "border"])
def test_the_values_of_medpy(golden: Callable[[str], Golden], case: str) -> None:
    vectors = golden("metrics")
    prediction, truth = golden_masks(vectors, case)
    found = between(prediction, truth, (1.0, 1.0, 1.0))
    _, _, hd95, asd = vectors[f"{case}.dc_jc_hd95_asd"]
    np.testing.assert_allclose([found.hd95, found.asd], [hd95, asd], rtol=0, atol=1e-6)
    asd_of_truth = vectors[f"{case}.asd_of_truth"]
    np.testing.assert_allclose(found.assd, (asd + asd_of_truth) / 2, rtol=0, atol=1e-6)
