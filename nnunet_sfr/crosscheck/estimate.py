"""A mean over cases, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_sfr.evaluation.bootstrap import paired_bootstrap


@dataclass(frozen=True)
class Estimate:
    """A mean over cases.

    Args:
        n: number of cases.
        mean: None if there are none.
        low: lower end of its 95 % bootstrap interval; None for fewer than two cases.
        high: upper end.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The mean of one value of each case."""
        if not values:
            return cls(0, None, None, None)
        mean, low, high = paired_bootstrap(values, np.zeros(len(values)))
        return cls(len(values), mean, *((None, None) if math.isnan(low) else (low, high)))

    @property
    def value(self) -> float:
        """The mean, where there are cases."""
        assert self.mean is not None
        return self.mean

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low is not None and self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.high is not None and self.high < 0

    def __neg__(self) -> Estimate:
        mean, low, high = (None if value is None else -value for value in (self.mean, self.low, self.high))
        return Estimate(self.n, mean, high, low)

    def __str__(self) -> str:
        """``0.803 (0.739 to 0.867)``; a dash without any case."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.3f}" + ("" if self.low is None else f" ({self.low:.3f} to {self.high:.3f})")
