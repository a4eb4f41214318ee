"""Statistics over cases: what is in a mean, and what is only counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_sfr.evaluation.summary import class_summaries, foreground_mean, statistics_of
from tests.evaluation.made_evaluations import BOTH_EMPTY, EMPTY_PREDICTION, EMPTY_TRUTH, NAN, evaluation_of, metrics


def test_statistics_by_hand() -> None:
    found = statistics_of([1.0, NAN, 2.0, 6.0])
    assert (found.n, found.mean, found.median, found.min, found.max) == (3, 3.0, 2.0, 1.0, 6.0)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_one_value_has_no_deviation_and_none_has_nothing() -> None:
    assert statistics_of([4.0]).mean == 4.0
    assert math.isnan(statistics_of([4.0]).sd)
    nothing = statistics_of([NAN])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)


def test_empty_masks_are_counted_apart_and_never_flatter() -> None:
    """Both empty: in no mean. One empty: in every mean, at its worst."""
    good = metrics(0.9, 1.0)
    cases = {"a": good, "b": BOTH_EMPTY, "c": EMPTY_PREDICTION, "d": EMPTY_TRUTH, "e": EMPTY_PREDICTION}
    summary = class_summaries(evaluation_of({case: {"liver": value} for case, value in cases.items()}))["liver"]
    counts = (summary.n_cases, summary.n_both_empty, summary.n_empty_predictions, summary.n_empty_truths)
    assert counts == (5, 1, 2, 1)
    assert summary.metrics["dice"].n == 4
    assert summary.metrics["dice"].mean == pytest.approx(0.9 / 4)
    assert summary.metrics["hd95_mm"].mean == pytest.approx(301 / 4)
    assert summary.metrics["truth_ml"].n == 5
    assert summary.metrics["fn"].mean == pytest.approx((1 + 7 + 7) / 5)


def test_the_foreground_mean_is_that_of_the_classes_means() -> None:
    """Not that of all values: the tumour has one case, the liver two; the bone has none."""
    evaluation = evaluation_of(
        {
            "a": {"liver": metrics(0.8, 1.0), "tumour": metrics(0.2, 9.0), "bone": BOTH_EMPTY},
            "b": {"liver": metrics(1.0, 0.0), "tumour": BOTH_EMPTY, "bone": BOTH_EMPTY},
        }
    )
    means = foreground_mean(class_summaries(evaluation))
    np.testing.assert_allclose([means["dice"], means["hd95_mm"]], [0.55, 4.75])
