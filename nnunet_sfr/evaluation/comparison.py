"""Two folders of predictions of the same cases: the difference in every metric, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.bootstrap import paired_bootstrap
from nnunet_sfr.evaluation.folders import Evaluation
from nnunet_sfr.evaluation.rules import HIGHER_IS_BETTER


@dataclass(frozen=True)
class PairedDifference:
    """One metric of one class, over the cases in which both predictions have a value.

    Args:
        n: these cases.
        mean: of the predictions.
        other_mean: of those that they are compared with.
        difference: ``mean - other_mean``.
        low: lower end of its 95 % bootstrap interval; NaN for fewer than two cases.
        high: upper end.
        n_better: cases in which the prediction is better than the other.
        n_worse: cases in which it is worse; in the rest both are the same.
        higher_is_better: which way is better.
    """

    n: int
    mean: float
    other_mean: float
    difference: float
    low: float
    high: float
    n_better: int
    n_worse: int
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """``"better"`` or ``"worse"`` where the interval leaves 0 on one side, else ``"unclear"``."""
        if self.low > 0 or self.high < 0:
            return "better" if (self.low > 0) == self.higher_is_better else "worse"
        return "unclear"


@dataclass(frozen=True)
class Comparison:
    """Predictions minus other predictions.

    Args:
        other: what they are compared with.
        cases: identifiers that both have, sorted.
        classes: by name of the class and of the metric.
        foreground_mean: by metric: for every case the mean of its classes, then compared like a class.
    """

    other: Evaluation
    cases: tuple[str, ...]
    classes: dict[str, dict[str, PairedDifference]]
    foreground_mean: dict[str, PairedDifference]


def compare(evaluation: Evaluation, other: Evaluation) -> Comparison:
    """Compare two evaluations by the cases that both have.

    Args:
        evaluation: of the model in question.
        other: of the model that it is compared with.

    Raises:
        UserError: there is none.
    """
    cases = tuple(identifier for identifier in evaluation.cases if identifier in other.cases)
    if not cases:
        raise UserError(f"{other.prediction}: has none of the cases of {evaluation.prediction}; nothing to compare")
    names = list(evaluation.classes.labels)
    classes: dict[str, dict[str, PairedDifference]] = {name: {} for name in names}
    foreground: dict[str, PairedDifference] = {}
    for metric in HIGHER_IS_BETTER:
        # (cases, classes); a value that the other side does not have counts on neither
        ours, theirs = _values(evaluation, cases, metric), _values(other, cases, metric)
        undefined = np.isnan(ours) | np.isnan(theirs)
        ours[undefined] = theirs[undefined] = math.nan
        for index, name in enumerate(names):
            classes[name][metric] = _difference(metric, ours[:, index], theirs[:, index])
        foreground[metric] = _difference(metric, _case_means(ours), _case_means(theirs))
    return Comparison(other, cases, classes, foreground)


def _values(evaluation: Evaluation, cases: Sequence[str], metric: str) -> np.ndarray:
    return np.array([[getattr(one, metric) for one in evaluation.cases[case].values()] for case in cases], np.float64)


def _case_means(values: np.ndarray) -> np.ndarray:
    """Mean over the classes of every case; NaN where none has a value."""
    counts = np.sum(~np.isnan(values), axis=1)
    return np.where(counts, np.nansum(values, axis=1) / np.maximum(counts, 1), math.nan)


def _difference(metric: str, ours: np.ndarray, theirs: np.ndarray) -> PairedDifference:
    defined = ~np.isnan(ours)
    ours, theirs = ours[defined], theirs[defined]
    higher = HIGHER_IS_BETTER[metric]
    if not ours.size:
        nothing = math.nan
        return PairedDifference(0, nothing, nothing, nothing, nothing, nothing, 0, 0, higher)
    difference, low, high = paired_bootstrap(ours, theirs)
    above, below = int(np.count_nonzero(ours > theirs)), int(np.count_nonzero(ours < theirs))
    return PairedDifference(
        n=len(ours),
        mean=float(ours.mean()),
        other_mean=float(theirs.mean()),
        difference=difference,
        low=low,
        high=high,
        n_better=above if higher else below,
        n_worse=below if higher else above,
        higher_is_better=higher,
    )
