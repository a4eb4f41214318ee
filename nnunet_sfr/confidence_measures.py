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
PAPER = "paper"
"""The word of the commands for eq. 8 with the paper's threshold."""


@dataclass(frozen=True)
class Measure:
    """A number of the record, turned so that a higher value means more confidence.

    Args:
        entries: of the record, which it is computed from.
        meaning: in a few words.
        combine: from the values of the entries to the number, None where it does not exist; the product unless stated,
            for entries that all fall when the model is wrong, for reasons of their own.
        optional: those of the entries that count as 1 where a record lacks them, so that the others decide;
            :meth:`values` lets them count for all cases or for none.
    """

    entries: tuple[str, ...]
    meaning: str
    combine: Callable[..., float | None] = lambda *values: math.prod(values)
    optional: tuple[str, ...] = ()
    needs_foreground: bool = False
    """Whether a label map in which nothing was found has no value: background is certain, and would pass for
    confidence."""

    def value(self, record: Mapping[str, Any]) -> float | None:
        """The measure of a case by its confidence record.

        None where the record lacks an entry that is not optional, or where nothing was found and that would pass for
        confidence.
        """
        if self.needs_foreground and nothing_found(record):
            return None
        values = [self._entry(record, entry) for entry in self.entries]
        return None if None in values else self.combine(*values)

    def values(self, records: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
        """The measure of every case of a pool, so that the cases can be compared.

        Where a record lacks an optional entry that would count, the entry counts for none of them.

        Args:
            records: confidence record by identifier.
        """
        values = {case: self.value(record) for case, record in records.items()}
        # a value of 0 or none does not depend on it: neither has a case in which SAM found nothing
        if any(value and self._lacks_optional(records[case]) for case, value in values.items()):
            values = {case: self.value({**record, **dict.fromkeys(self.optional)}) for case, record in records.items()}
        return values

    def _lacks_optional(self, record: Mapping[str, Any]) -> bool:
        return any(record.get(entry) is None for entry in self.optional)

    def _entry(self, record: Mapping[str, Any], entry: str) -> Any:
        value = record.get(entry)
        return 1.0 if value is None and entry in self.optional else value


def nothing_found(record: Mapping[str, Any]) -> bool:
    """Whether a label map has no foreground, by its confidence record."""
    of_foreground = [voxels for label, voxels in (record.get("class_voxels") or {}).items() if label != "0"]
    return bool(of_foreground) and not any(of_foreground)


def _least_certain_class(by_class: Mapping[str, float | None]) -> float | None:
    return min((value for label, value in by_class.items() if label != "0" and value is not None), default=None)


def _joint_agreement(flip: float, sam_flip: float, sam: float) -> float:
    # a model and its mirror image share most of their mistakes, so the Dice between them promises too much
    return flip**2 * sam_flip**2 * sam


MEASURES: dict[str, Measure] = {
    "joint_agreement": Measure(
        ("flip_agreement", "sam_flip_agreement", "sam_agreement"),
        "agreement with SAM's first labels, times the squares of its own and of SAM's agreement under flips",
        _joint_agreement,
        # labels of round 0 that came without probabilities, or by an earlier version, say nothing about themselves
        optional=("sam_flip_agreement",),
    ),
    "agreement": Measure(
        ("flip_agreement", "sam_agreement"), "agreement under flips times that with SAM's first labels"
    ),
    "estimated_dice": Measure(("flip_agreement", "expected_dice"), "agreement under flips times expected Dice"),
    "flip_agreement": Measure(("flip_agreement",), "Dice with its labels of the mirrored image"),
    "plane_agreement": Measure(
        ("plane_agreement",), "Dice between mosaics of slices across different axes, mean over pairs"
    ),
    "sam_agreement": Measure(("sam_agreement",), "Dice with SAM's first labels"),
    "expected_dice": Measure(("expected_dice",), "Dice that its probabilities promise"),
    "foreground_mean_max_probability": Measure(
        ("foreground_mean_max_probability",), "mean probability of its decision, over predicted foreground"
    ),
    "class_mean_max_probability": Measure(
        ("class_mean_max_probability",), "the same, of the class it is least sure of", _least_certain_class
    ),
    "boundary_entropy": Measure(
        ("boundary_entropy",), "1 - mean normalised entropy near predicted boundaries", lambda entropy: 1.0 - entropy
    ),
    "previous_round_agreement": Measure(("previous_round_agreement",), "Dice with the previous round's label map"),
    PAPER_MEASURE: Measure(
        (PAPER_MEASURE,),
        "eq. 8 of the paper: mean probability of the most probable label, all voxels",
        needs_foreground=True,
    ),
}
"""What cases can be told apart by. docs/results.md has their rank correlation with the true Dice,
docs/add-a-confidence-measure.md goes through a new one."""
