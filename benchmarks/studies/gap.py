"""The share of the gap between few labels and all labels that a method closes, and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.evaluation.bootstrap import SEED, percentile_interval

RESAMPLES = 2_000
Scores = NDArray[np.float64]
"""(seeds, cases)."""


@dataclass(frozen=True)
class Share:
    """(method - few) / (all - few), of means over cases and seeds.

    Args:
        value: 0 is no better than few labels, 1 as good as all; NaN where all labels are no better than few.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end.
    """

    value: float
    low: float
    high: float


def share_of_gap(method: Scores, few: Scores, full: Scores, *, resamples: int = RESAMPLES, seed: int = SEED) -> Share:
    """The share and its bootstrap interval: test cases and the seeds of each of the three are drawn with replacement.

    Cases are drawn together for all three, as they are the same; seeds by themselves. A single seed says nothing of
    others, and is kept.

    Args:
        method: Dice, (seeds, cases).
        few: of nnU-Net with the few labels, the same cases.
        full: of nnU-Net with all labels, the same cases.
        resamples: draws.
        seed: of the draws.
    """
    if full.mean() <= few.mean():
        return Share(math.nan, math.nan, math.nan)
    scores = (method, few, full)
    value = _share(*(one.mean() for one in scores))
    if method.shape[1] < 2:
        return Share(value, math.nan, math.nan)
    # scipy draws from each of these by itself
    drawn = [np.arange(method.shape[1]), *(np.arange(len(one)) for one in scores if len(one) > 1)]

    def statistic(cases: NDArray[np.int64], *seeds: NDArray[np.int64]) -> float:
        left = iter(seeds)
        means = [one[np.ix_(next(left) if len(one) > 1 else np.zeros(1, np.int64), cases)].mean() for one in scores]
        return _share(*means)

    # scipy gives a standard error too, which draws without a gap do not have
    with np.errstate(invalid="ignore"):
        interval = percentile_interval(drawn, statistic, resamples=resamples, seed=seed, vectorized=False)
    return Share(value, *interval)


def _share(method: float, few: float, full: float) -> float:
    """Beyond all bounds where a draw leaves no gap, with the sign of the difference."""
    gap = full - few
    return float((method - few) / gap) if gap > 0 else math.copysign(math.inf, method - few)
