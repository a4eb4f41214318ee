"""What cases can be told apart by, read from their confidence records; without torch, which is slow to import."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PAPER_MEASURE = "mean_max_probability"
"""Eq. 8."""
PAPER_THRESHOLD = 0.985
"""The paper's tau."""


@dataclass(frozen=True)
class Measure:
    """A number of the record, turned so that a higher value means more confidence.

    Args:
        value: from a record to the number, None where the record has none.
        meaning: in a few words.
    """

    value: Callable[[Mapping[str, Any]], float | None]
    meaning: str


def _entry(key: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda record: record.get(key)


def _certainty_at_boundary(record: Mapping[str, Any]) -> float | None:
    entropy = record.get("boundary_entropy")
    return None if entropy is None else 1.0 - entropy


def _least_sure_class(record: Mapping[str, Any]) -> float | None:
    by_class = record.get("class_mean_max_probability") or {}
    values = [value for label, value in by_class.items() if label != "0" and value is not None]
    return min(values, default=None)


def _product(*keys: str) -> Callable[[Mapping[str, Any]], float | None]:
    """Of entries that all fall when the model is wrong, for reasons of their own; None if one is missing."""

    def value(record: Mapping[str, Any]) -> float | None:
        factors = [record.get(key) for key in keys]
        return None if None in factors else math.prod(factor for factor in factors if factor is not None)

    return value


MEASURES: dict[str, Measure] = {
    "agreement": Measure(
        _product("flip_agreement", "sam_agreement"), "agreement under flips times that with SAM's first labels"
    ),
    "estimated_dice": Measure(_product("flip_agreement", "expected_dice"), "agreement under flips times expected Dice"),
    "flip_agreement": Measure(_entry("flip_agreement"), "Dice with its labels of the mirrored image"),
    "plane_agreement": Measure(
        _entry("plane_agreement"), "Dice between mosaics of slices across different axes, mean over pairs"
    ),
    "sam_agreement": Measure(_entry("sam_agreement"), "Dice with SAM's first labels"),
    "expected_dice": Measure(_entry("expected_dice"), "Dice that its probabilities promise"),
    "foreground_mean_max_probability": Measure(
        _entry("foreground_mean_max_probability"), "mean probability of its decision, over predicted foreground"
    ),
    "class_mean_max_probability": Measure(_least_sure_class, "the same, of the class it is least sure of"),
    "boundary_entropy": Measure(_certainty_at_boundary, "1 - mean normalised entropy near predicted boundaries"),
    "previous_round_agreement": Measure(_entry("previous_round_agreement"), "Dice with the previous round's label map"),
    PAPER_MEASURE: Measure(_entry(PAPER_MEASURE), "eq. 8 of the paper: mean probability of its decision, all voxels"),
}
"""What cases can be told apart by. docs/results.md has their rank correlation with the true Dice."""
