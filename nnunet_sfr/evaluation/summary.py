"""What a folder of predictions comes to: statistics over cases, class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from nnunet_sfr.evaluation.folders import Evaluation
from nnunet_sfr.evaluation.metrics import Metrics

METRICS = tuple(field.name for field in fields(Metrics))


@dataclass(frozen=True)
class Statistics:
    """Of one metric over cases; undefined values are left out, and NaN is what no value is left for.

    Args:
        n: values that are defined.
        sd: with n - 1; NaN for a single value.
    """

    n: int
    mean: float
    sd: float
    median: float
    min: float
    max: float


@dataclass(frozen=True)
class ClassSummary:
    """One class over all cases.

    Args:
        n_cases: all.
        n_both_empty: cases in which the class is in neither mask.
        n_empty_predictions: cases in which it is in the truth only.
        n_empty_truths: cases in which it is in the prediction only.
        metrics: by name of the field of :class:`~nnunet_sfr.evaluation.metrics.Metrics`.
    """

    n_cases: int
    n_both_empty: int
    n_empty_predictions: int
    n_empty_truths: int
    metrics: dict[str, Statistics]


def class_summaries(evaluation: Evaluation) -> dict[str, ClassSummary]:
    """Every class, by name."""
    return {
        name: _summarise_class([case[name] for case in evaluation.cases.values()]) for name in evaluation.classes.labels
    }


def foreground_mean(summary: dict[str, ClassSummary]) -> dict[str, float]:
    """Mean of the classes' means, by metric, as nnU-Net's; classes without a mean are left out."""
    return {metric: statistics_of([one.metrics[metric].mean for one in summary.values()]).mean for metric in METRICS}


def statistics_of(values: Sequence[float]) -> Statistics:
    """Statistics of values of which some may be NaN."""
    defined = np.asarray([value for value in values if not math.isnan(value)], np.float64)
    if not defined.size:
        return Statistics(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    return Statistics(
        n=defined.size,
        mean=float(defined.mean()),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else math.nan,
        median=float(np.median(defined)),
        min=float(defined.min()),
        max=float(defined.max()),
    )


def _summarise_class(cases: Sequence[Metrics]) -> ClassSummary:
    return ClassSummary(
        n_cases=len(cases),
        n_both_empty=sum(case.is_both_empty for case in cases),
        n_empty_predictions=sum(case.is_empty_prediction for case in cases),
        n_empty_truths=sum(case.is_empty_truth for case in cases),
        metrics={metric: statistics_of([getattr(case, metric) for case in cases]) for metric in METRICS},
    )
