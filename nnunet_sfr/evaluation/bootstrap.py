"""How sure one can be of a difference between two models that were tested on the same cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95
PER_BLOCK = 1_000
"""Resamples drawn at once: memory for a thousand times the number of cases."""


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float, float]:
    """Mean of ``a - b`` and its bootstrap interval: percentiles of the means of resampled cases.

    Args:
        a: one finite value per case, in (cases,).
        b: values of the same cases, in the same order.
        resamples: how often to draw as many cases as there are, with replacement.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        Mean difference and the two ends of its 95 % interval, which are NaN for a single case.

    Raises:
        ValueError: no values, a different number of values, or values that are not finite.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"expected two rows of as many values, got shapes {first.shape} and {second.shape}")
    differences = first - second
    if not np.all(np.isfinite(differences)):
        raise ValueError("values must be finite: leave out pairs of which one is undefined")
    mean = float(differences.mean())
    if len(differences) == 1:
        return mean, math.nan, math.nan
    return mean, *percentile_interval((differences,), np.mean, resamples=resamples, seed=seed, batch=PER_BLOCK)


def percentile_interval(
    data: Sequence[NDArray[Any]],
    statistic: Callable[..., Any],
    *,
    resamples: int,
    seed: int,
    batch: int | None = None,
    vectorized: bool | None = None,
) -> tuple[float, float]:
    """The two ends of a 95 % bootstrap interval: percentiles of a statistic of resampled data.

    Args:
        data: samples, each drawn by itself with replacement.
        statistic: of as many samples.
        resamples: draws.
        seed: of the draws; the same seed gives the same interval.
        batch: draws that are held at once; None for all.
        vectorized: whether the statistic takes ``axis``; None to look at it.
    """
    interval = stats.bootstrap(
        data,
        statistic,
        n_resamples=resamples,
        batch=batch,
        vectorized=vectorized,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
