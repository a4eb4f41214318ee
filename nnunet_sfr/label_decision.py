"""How a voxel's label follows from the probabilities of the classes: the rules, in one table.

Importing it needs no torch, so that settings can be checked without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOWEST_THRESHOLD = 0.25
"""Half of what a class needs when nothing else is likely: below it, a class that is absent would be found somewhere."""
_HIGHEST_THRESHOLD = 0.5
_STEPS = 1000
"""Thresholds are multiples of 1 / _STEPS."""


@dataclass(frozen=True)
class DecisionRule:
    """One way to decide.

    Args:
        decide: from the probabilities (K, D, H, W), a softmax over label values, to the label values (D, H, W).
        meaning: in a few words.
    """

    decide: Callable[[Tensor], Tensor]
    meaning: str


def most_probable_labels(probabilities: Tensor) -> Tensor:
    """The class with the highest probability, voxel by voxel, which makes the fewest wrong voxels.

    Args:
        probabilities: (K, D, H, W), a softmax over label values.

    Returns:
        (D, H, W) label values.
    """
    return probabilities.argmax(dim=0)


def labels_of_highest_expected_dice(probabilities: Tensor) -> Tensor:
    """Every class from the threshold on that promises it the highest Dice.

    A small organ that is found with probabilities of 0.4 has no voxel by the most probable class, and a Dice of 0; with
    calibrated probabilities, the threshold that is best for the Dice is half of the Dice that can be reached (Lipton,
    Elkan and Naryanaswamy, Optimal thresholding of classifiers to maximize F1 measure, 2014), so that it is lower where
    a case is difficult. Where several classes reach their thresholds, the one that is highest above its own wins.

    Args:
        probabilities: (K, D, H, W), a softmax over label values, 0 being background.

    Returns:
        (D, H, W) label values.
    """
    labels = probabilities.new_zeros(probabilities.shape[1:]).long()
    # a class at its threshold has a score of 1, and less is background
    best = probabilities.new_ones(probabilities.shape[1:])
    # from the last class on, so that of equal scores the first class's counts, as in an argmax
    for label in range(len(probabilities) - 1, 0, -1):
        score = probabilities[label] / dice_threshold(probabilities[label])
        labels[score >= best] = label
        best = best.maximum(score)
    return labels


def dice_threshold(probability: Tensor) -> float:
    """The threshold t in [LOWEST_THRESHOLD, 0.5] of one class with the highest expected Dice.

    The expected Dice of P = {v: p(v) >= t} is 2 sum_{v in P} p(v) / (|P| + sum_v p(v)), the ratio of the expected
    overlap to the expected sizes. Of equal thresholds the highest counts.

    Args:
        probability: (D, H, W) of one class.
    """
    counts = probability.new_zeros(_STEPS + 1).double()
    sums = counts.clone()
    for plane in probability:  # one at a time, for the memory of a large CT
        values = plane.flatten().double()
        bins = (values * _STEPS).long().clamp(0, _STEPS)
        counts += bins.bincount(minlength=_STEPS + 1)
        sums += bins.bincount(weights=values, minlength=_STEPS + 1)
    sizes, overlaps = (of_bins.flip(0).cumsum(0).flip(0) for of_bins in (counts, sums))
    first, last = int(LOWEST_THRESHOLD * _STEPS), int(_HIGHEST_THRESHOLD * _STEPS)
    dice = (2 * overlaps / (sizes + sums.sum()).clamp(min=1e-12))[first : last + 1]
    return (last - int(dice.flip(0).argmax())) / _STEPS


LARGEST_PROBABILITY, EXPECTED_DICE = "largest_probability", "expected_dice"
DECISION_RULES: Mapping[str, DecisionRule] = {
    LARGEST_PROBABILITY: DecisionRule(most_probable_labels, "the most probable class"),
    EXPECTED_DICE: DecisionRule(
        labels_of_highest_expected_dice, "per case and class, the threshold that promises the highest Dice"
    ),
}
"""By the value of the setting ``pseudo_labels.decision``."""
