"""The bootstrap interval of a paired difference, where it is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_sfr.evaluation.bootstrap import paired_bootstrap


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    other = np.array([0.1, 0.5, 0.9, 0.7])
    np.testing.assert_allclose(paired_bootstrap(other + 0.25, other), (0.25, 0.25, 0.25), rtol=0, atol=1e-15)


def test_two_cases_that_disagree() -> None:
    """Means of two draws from (-1, 1) are -1, 0 and 1 with probabilities 1/4, 1/2 and 1/4."""
    assert paired_bootstrap([1.0, 2.0], [2.0, 1.0]) == (0.0, -1.0, 1.0)


def test_the_interval_of_many_cases_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(0.3, 2.0, size=400)
    mean, low, high = paired_bootstrap(differences, np.zeros(400))
    half = 1.96 * differences.std() / 20
    assert mean == pytest.approx(differences.mean())
    np.testing.assert_allclose((low, high), (mean - half, mean + half), atol=0.03 * half)


def test_the_other_way_round_is_the_mirror_image() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(15), rng.random(15)
    mean, low, high = paired_bootstrap(a, b)
    np.testing.assert_allclose(paired_bootstrap(b, a), (-mean, -high, -low), atol=1e-12)
    assert low < mean < high


def test_pairs_are_kept_together() -> None:
    """Cases differ much, and the difference hardly: only pairs show it."""
    level = np.arange(10.0)
    mean, low, high = paired_bootstrap(level + np.tile([0.09, 0.11], 5), level)
    assert 0.09 < low < mean < high < 0.11


def test_the_seed_decides() -> None:
    a, b = np.arange(7.0) ** 2, np.arange(7.0)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, resamples=50, seed=3) != paired_bootstrap(a, b, resamples=50, seed=4)


def test_one_case_says_nothing_of_others() -> None:
    mean, low, high = paired_bootstrap([3.0], [1.0])
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, math.nan], [1.0, 2.0])])
def test_values_that_are_no_pairs(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match=r"as many values|finite"):
        paired_bootstrap(a, b)
