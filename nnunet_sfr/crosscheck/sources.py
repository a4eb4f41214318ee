"""Who labels the cases that are left out, and what comes of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAM, NNUNET, MEAN = "sam", "nnunet", "mean"
"""The fine-tuned SAM, plain nnU-Net after a short training, and the mean of their probabilities."""
SOURCES: Mapping[str, str] = {SAM: "SAM", NNUNET: "nnU-Net", MEAN: "mean of both"}
"""Their names for people, in the order in which they are shown."""


@dataclass(frozen=True)
class LeftOutCase:
    """A labelled case as a model labelled it that had not learned from it.

    Args:
        identifier: of the case.
        fold: which left it out.
        dice: by label value, as text; None where neither map has the class.
        record: confidence, as in a pseudo-label store.
    """

    identifier: str
    fold: int
    dice: Mapping[str, float | None]
    record: Mapping[str, Any]

    @property
    def mean_dice(self) -> float | None:
        """Over the classes that are in either map; None if there are none."""
        known = [value for value in self.dice.values() if value is not None]
        return sum(known) / len(known) if known else None
