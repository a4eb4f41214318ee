"""Paired differences: who is compared, which way is better."""

from __future__ import annotations

import math

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.comparison import compare
from tests.evaluation.made_evaluations import BOTH_EMPTY, EMPTY_PREDICTION, evaluation_of, metrics

HERE = evaluation_of(
    {
        "a": {"liver": metrics(0.9, 4.0), "tumour": metrics(0.5, 2.0)},
        "b": {"liver": metrics(0.8, 5.0), "tumour": BOTH_EMPTY},
        "c": {"liver": metrics(0.7, 6.0), "tumour": metrics(0.5, 2.0)},
        "only_here": {"liver": EMPTY_PREDICTION, "tumour": EMPTY_PREDICTION},
    }
)
OTHER = evaluation_of(
    {
        "a": {"liver": metrics(0.8, 3.0), "tumour": metrics(0.4, 3.0)},
        "b": {"liver": metrics(0.7, 4.0), "tumour": metrics(0.0, 50.0)},
        "c": {"liver": metrics(0.6, 5.0), "tumour": metrics(0.8, 2.0)},
    },
    "other",
)


def test_a_constant_difference_is_sure_and_has_a_direction() -> None:
    liver = compare(HERE, OTHER).classes["liver"]
    dice, hd95 = liver["dice"], liver["hd95_mm"]
    assert (dice.n, dice.n_better, dice.n_worse, dice.verdict) == (3, 3, 0, "better")
    assert [dice.difference, dice.low, dice.high] == pytest.approx([0.1, 0.1, 0.1])
    assert [dice.mean, dice.other_mean] == pytest.approx([0.8, 0.7])
    assert (hd95.n, hd95.n_better, hd95.n_worse, hd95.verdict) == (3, 0, 3, "worse")
    assert [hd95.difference, hd95.low, hd95.high] == [1.0, 1.0, 1.0]


def test_cases_that_one_side_has_no_value_for_are_in_neither_mean() -> None:
    tumour = compare(HERE, OTHER).classes["tumour"]
    dice, hd95 = tumour["dice"], tumour["hd95_mm"]
    assert (dice.n, dice.n_better, dice.n_worse, dice.verdict) == (2, 1, 1, "unclear")
    assert [dice.mean, dice.other_mean, dice.difference] == pytest.approx([0.5, 0.6, -0.1])
    assert (dice.low, dice.high) == pytest.approx((-0.3, 0.1))  # of two cases: either of them twice
    assert (hd95.n_better, hd95.n_worse) == (1, 0)


def test_the_foreground_mean_is_paired_case_by_case() -> None:
    """Case b counts with its liver alone, on both sides."""
    found = compare(HERE, OTHER)
    dice = found.foreground_mean["dice"]
    assert found.cases == ("a", "b", "c")
    assert dice.n == 3
    assert dice.mean == pytest.approx((0.7 + 0.8 + 0.6) / 3)
    assert dice.other_mean == pytest.approx((0.6 + 0.7 + 0.7) / 3)
    assert (dice.n_better, dice.n_worse) == (2, 1)


def test_the_other_way_round() -> None:
    forth, back = (compare(*pair).classes["tumour"]["dice"] for pair in ((HERE, OTHER), (OTHER, HERE)))
    assert back.difference == pytest.approx(-forth.difference)
    assert (back.n_better, back.n_worse) == (forth.n_worse, forth.n_better)


def test_a_class_that_is_found_nowhere() -> None:
    empty = evaluation_of({"a": {"liver": BOTH_EMPTY}})
    found = compare(empty, empty).classes["liver"]["dice"]
    assert (found.n, found.verdict) == (0, "unclear")
    assert math.isnan(found.difference)


def test_no_case_in_common() -> None:
    with pytest.raises(UserError, match="has none of the cases"):
        compare(evaluation_of({"x": {"liver": BOTH_EMPTY}}), evaluation_of({"y": {"liver": BOTH_EMPTY}}))
