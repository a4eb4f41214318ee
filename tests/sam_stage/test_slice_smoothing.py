"""Probabilities smoothed across slices."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_sfr.sam_stage.slice_smoothing import sigma_in_slices, smooth_across_slices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_spreads_along_the_axis_alone(axis: int) -> None:
    probabilities = torch.zeros(2, 9, 9, 9)
    probabilities[0] = 1.0
    probabilities[:, 4, 4, 4] = torch.tensor([0.0, 1.0])
    smoothed = smooth_across_slices(probabilities, axis, 1.0)
    weights = [math.exp(-0.5 * distance**2) for distance in range(-4, 5)]
    index = tuple(slice(None) if dim == axis else 4 for dim in range(3))
    expected = torch.tensor(weights) / sum(weights)
    torch.testing.assert_close(smoothed[1][index], expected, rtol=0, atol=1e-4)
    assert smoothed[1].sum() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(smoothed.sum(dim=0), torch.ones(9, 9, 9))


def test_mirroring_first_or_last_is_the_same_and_zero_changes_nothing() -> None:
    probabilities = torch.rand(3, 6, 5, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=0)
    mirrored = torch.flip(smooth_across_slices(torch.flip(probabilities, (1,)), 0, 0.8), (1,))
    torch.testing.assert_close(mirrored, smooth_across_slices(probabilities, 0, 0.8))
    assert smooth_across_slices(probabilities, 0, 0.0) is probabilities


def test_a_constant_stays_at_the_ends() -> None:
    torch.testing.assert_close(
        smooth_across_slices(torch.full((1, 3, 2, 2), 0.3), 0, 2.0), torch.full((1, 3, 2, 2), 0.3)
    )


def test_millimetres_become_slices_of_that_axis() -> None:
    assert sigma_in_slices(2.0, (5.0, 1.0, 0.5), 0) == pytest.approx(0.4)
    assert sigma_in_slices(2.0, (5.0, 1.0, 0.5), 2) == pytest.approx(4.0)
    assert sigma_in_slices(2.0, (1.0, 1.0), 0) == 0.0
