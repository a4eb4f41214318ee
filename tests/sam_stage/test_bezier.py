"""Intensity curves keep the order and the range of each slice's intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_sfr.sam_stage.bezier import BezierCurveTransform, bend_intensities, random_monotone_curve


class _Corners:
    """A generator that puts the inner control points into corners of the unit square: the extreme curves."""

    def __init__(self, *coordinates: float) -> None:
        self.coordinates = np.reshape(coordinates, (2, 2))

    def random(self, _: object) -> np.ndarray:
        return self.coordinates


@pytest.mark.parametrize("seed", range(50))
def test_curves_are_monotone(seed: int) -> None:
    x, y = random_monotone_curve(np.random.default_rng(seed))
    for values in (x, y):
        assert values[0] == pytest.approx(0.0)
        assert values[-1] == pytest.approx(1.0)
        assert np.diff(values).min() >= -1e-12


@pytest.mark.parametrize("first", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("second", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_extreme_curves_are_monotone(first: tuple[int, int], second: tuple[int, int]) -> None:
    for values in random_monotone_curve(_Corners(*first, *second)):  # type: ignore[arg-type]
        assert np.diff(values).min() >= -1e-12


def test_order_and_range_of_each_slice_are_kept() -> None:
    torch.manual_seed(0)
    patch = torch.randn(2, 5, 9, 8) * 3
    original = patch.clone()
    bent = bend_intensities(patch, np.random.default_rng(0))
    assert torch.equal(patch, original)
    assert bent.dtype == patch.dtype
    assert not torch.allclose(bent, patch, atol=0.1)
    shifts = set()
    for before, after in zip(patch.reshape(10, -1), bent.reshape(10, -1), strict=True):
        assert bool((after[before.argsort()].diff() >= 0).all())
        torch.testing.assert_close(after.min(), before.min())
        torch.testing.assert_close(after.max(), before.max())
        shifts.add(round(float((after - before).mean()), 4))
    assert len(shifts) == 10, "every slice should have a curve of its own"


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_are_those_across_the_given_axis(slice_axis: int) -> None:
    """As across the first axis of a patch whose axes are exchanged."""
    torch.manual_seed(0)
    patch = torch.randn(2, 4, 5, 6)
    bent = bend_intensities(patch, np.random.default_rng(0), slice_axis=slice_axis)
    turned = bend_intensities(patch.movedim(1 + slice_axis, 1).contiguous(), np.random.default_rng(0))
    assert torch.equal(bent.movedim(1 + slice_axis, 1), turned)


def test_constant_slices_stay() -> None:
    patch = torch.full((1, 2, 4, 4), 1.5)
    assert torch.equal(bend_intensities(patch, np.random.default_rng(0)), patch)


def test_probability_is_per_slice() -> None:
    patch = torch.randn(1, 200, 4, 4)
    bent = bend_intensities(patch, np.random.default_rng(0), probability=0.5)
    changed = int((bent != patch).flatten(2).any(-1).sum())
    assert 70 < changed < 130
    assert torch.equal(bend_intensities(patch, np.random.default_rng(0), probability=0.0), patch)


def test_transform_changes_the_image_only_and_follows_numpys_seed() -> None:
    image, segmentation = torch.randn(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    transform = BezierCurveTransform()
    results = []
    for _ in range(2):
        np.random.seed(7)
        results.append(transform(image=image, segmentation=segmentation))
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert not torch.equal(results[0]["image"], image)
    assert torch.equal(results[0]["segmentation"], segmentation)
