"""An evaluation on the terminal: a table of classes and metrics, what is odd, and a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_sfr.evaluation.comparison import Comparison, PairedDifference
from nnunet_sfr.evaluation.folders import Evaluation
from nnunet_sfr.evaluation.rules import HIGHER_IS_BETTER, TITLES
from nnunet_sfr.evaluation.summary import ClassSummary, Statistics, class_summaries, foreground_mean
from nnunet_sfr.wording import aligned

_FOREGROUND = "foreground mean"
_MOST_WARNINGS = 3


def table(evaluation: Evaluation) -> list[str]:
    """Mean and standard deviation of every class and metric, and how many cases have empty masks."""
    summary = class_summaries(evaluation)
    header = ["", *(_title(metric, evaluation) for metric in TITLES)]
    rows = [[name, *(_mean_sd(one.metrics[metric], metric) for metric in TITLES)] for name, one in summary.items()]
    if len(summary) > 1:
        means = foreground_mean(summary)
        rows.append([_FOREGROUND, *(_number(means[metric], metric) for metric in TITLES)])
    lines = [f"{evaluation.prediction}: mean ± standard deviation over cases (n = {len(evaluation.cases)})", ""]
    lines += aligned([header, *rows], left=1)
    notes = [note for name, one in summary.items() for note in _empties(name, one)]
    if evaluation.missing:
        total = len(evaluation.missing) + len(evaluation.cases)
        notes.append(f"left out, for want of a prediction: {len(evaluation.missing)} of {total} cases")
    return lines + ([""] if notes else []) + notes


def comparison_table(evaluation: Evaluation, comparison: Comparison) -> list[str]:
    """The difference in every class and metric, with its interval and the number of cases that are better or worse.

    Args:
        evaluation: gives classes and metrics.
        comparison: of it with another one.
    """
    rows = [["", "", "is better", "here", "other", "difference", "95 % interval", "better", "worse", ""]]
    groups = dict(comparison.classes)
    if len(groups) > 1:
        groups[_FOREGROUND] = comparison.foreground_mean
    for name, metrics in groups.items():
        rows += [[name, *_compared(metric, metrics[metric], evaluation)] for metric in HIGHER_IS_BETTER]
    first = f"compared with {comparison.other.prediction}: here - other (n = {len(comparison.cases)})"
    return [first, "", *aligned(rows, left=3)]


def warning_lines(warnings: Sequence[str], file: str) -> list[str]:
    """The first few warnings, and where the others are.

    Args:
        warnings: in the order in which they are shown.
        file: that has all of them.
    """
    more = len(warnings) - _MOST_WARNINGS
    rest = [f"... and {more} more, in {file}"] if more > 0 else []
    return [*warnings[:_MOST_WARNINGS], *rest]


def _compared(metric: str, pair: PairedDifference, evaluation: Evaluation) -> list[str]:
    sign = "+" if pair.difference > 0 else ""
    return [
        _title(metric, evaluation),
        "higher" if pair.higher_is_better else "lower",
        _number(pair.mean, metric),
        _number(pair.other_mean, metric),
        sign + _number(pair.difference, metric),
        f"{_number(pair.low, metric)} to {_number(pair.high, metric)}",
        str(pair.n_better),
        str(pair.n_worse),
        pair.verdict,
    ]


def _title(metric: str, evaluation: Evaluation) -> str:
    if metric.endswith("_mm"):
        return f"{TITLES[metric]} [{evaluation.unit}]"
    if metric == "nsd":
        return f"{TITLES[metric]} ({evaluation.nsd_tolerance_mm:g} {evaluation.unit})"
    return TITLES[metric]


def _mean_sd(statistics: Statistics, metric: str) -> str:
    return f"{_number(statistics.mean, metric)} ± {_number(statistics.sd, metric)}"


def _number(value: float, metric: str) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if metric.endswith("_mm") else f"{value:.4f}"


def _empties(name: str, summary: ClassSummary) -> list[str]:
    notes = {
        "empty prediction, counted as the worst possible": summary.n_empty_predictions,
        "prediction where the truth is empty, counted as the worst possible": summary.n_empty_truths,
        "truth and prediction empty, in no mean": summary.n_both_empty,
    }
    return [f"{name}: {note}: {count} of {summary.n_cases} cases" for note, count in notes.items() if count]
