"""How sure a model is of a label map: the one definition, for SAM and for nnU-Net's networks.

:mod:`nnunet_sfr.confidence_measures` reads the records that are made here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

BOUNDARY_WIDTH = 2
"""Voxels on either side of a boundary that count as near it."""

REFERENCES = ("previous_round_agreement", "sam_agreement")
"""Entries that compare a label map with another one of the same case."""
NO_REFERENCE_LABELS: Mapping[str, torch.Tensor | None] = dict.fromkeys(REFERENCES)
SAM_FLIP_AGREEMENT = "sam_flip_agreement"
"""Entry that a record takes from that of another label map of the case, which is compared with."""


def largest_probability(probabilities: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """The probability of the most probable label, voxel by voxel.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        regions: which of the two.

    Returns:
        (D, H, W). Softmax: max_c p_c, as in eq. 8 of the paper. Regions, in double precision: the product over regions
        of max(p_r, 1 - p_r), which is the probability of exactly those regions that are above 0.5, if they were
        independent.
    """
    if not regions:
        return probabilities.amax(dim=0)
    decision = torch.ones(probabilities.shape[1:], dtype=torch.float64)
    for region in probabilities:  # one at a time: all of them in double precision can fill the memory
        decision *= torch.maximum(region, 1 - region)
    return decision


def decision_probability(probabilities: torch.Tensor, labels: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """The probability that a model gives to what was decided, voxel by voxel.

    By the rule of the highest expected Dice that need not be the most probable label: foreground can be decided at 0.3.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        labels: (D, H, W), the label values decided on; of regions, whose rule is nnU-Net's, they do not matter.
        regions: which of the two.

    Returns:
        (D, H, W). Softmax: p of the label. Regions: :func:`largest_probability`.
    """
    if regions:
        return largest_probability(probabilities, regions=True)
    return probabilities.gather(0, labels[None].long())[0]


@dataclass(frozen=True)
class PredictedCase:
    """What the entries of a record are computed from.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        labels: (D, H, W), the label values decided on.
        certainty: (D, H, W), :func:`decision_probability`.
        num_classes: number of label values, background included.
        regions: whether ``probabilities`` are those of regions.
    """

    probabilities: torch.Tensor
    labels: torch.Tensor
    certainty: torch.Tensor
    num_classes: int
    regions: bool


def _of_each_class(case: PredictedCase) -> dict[str, float | None]:
    return {str(label): _mean_over(case.certainty, case.labels == label) for label in range(case.num_classes)}


ENTRIES: dict[str, Callable[[PredictedCase], Any]] = {
    "mean_max_probability": lambda case: _mean(largest_probability(case.probabilities, regions=case.regions)),
    "foreground_mean_max_probability": lambda case: _mean_over(case.certainty, case.labels > 0),
    "class_mean_max_probability": _of_each_class,
    "expected_dice": lambda case: expected_dice(case.probabilities, case.labels, regions=case.regions),
    "boundary_entropy": lambda case: _mean_over(
        normalised_entropy(case.probabilities, regions=case.regions), near_boundary(case.labels)
    ),
}
"""The entries that need probabilities; in a record of a label map that came without them they are None."""


def confidence_record(
    probabilities: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_classes: int,
    regions: bool,
    mirrored: Iterable[torch.Tensor] = (),
    planes: Sequence[torch.Tensor] = (),
    others: Mapping[str, torch.Tensor | None] = NO_REFERENCE_LABELS,
    certainty: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Confidence of one case.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        labels: (D, H, W), the label values decided on.
        num_classes: number of label values, background included.
        regions: whether ``probabilities`` are those of regions.
        mirrored: label maps (D, H, W) of the mirrored image, mirrored back.
        planes: label maps (D, H, W) of mosaics across each axis, if there are several.
        others: label maps (D, H, W) to compare with, by the entry of ``REFERENCES`` that they give.
        certainty: :func:`decision_probability`, from those who have it; None to compute it.

    Returns:
        None stands for a number that does not exist, as nothing can be said of foreground that was not found.

        ``mean_max_probability``: eq. 8 of the paper, the mean over all voxels of :func:`largest_probability`.
        ``foreground_mean_max_probability``: the mean of :func:`decision_probability` over predicted foreground
        (background fills most of a volume and hides how sure the model is of the organ).
        ``class_mean_max_probability`` and ``class_voxels``: by label value, as strings, for JSON.
        ``expected_dice``: :func:`expected_dice`.
        ``boundary_entropy``: mean normalised entropy within ``BOUNDARY_WIDTH`` voxels of a predicted boundary.
        ``flip_agreement``: mean of :func:`agreement` with the label maps in ``mirrored``.
        ``plane_agreement``: mean of :func:`agreement` over the pairs of label maps in ``planes``.
        ``previous_round_agreement``: :func:`agreement` with the label map of the previous round.
        ``sam_agreement``: of the re-trained model's labels with those of round 0, SAM's usually, which were made before
        SAM learned anything from the model.
        ``sam_flip_agreement``: ``flip_agreement`` of those labels of round 0, which only their maker can tell.
    """
    sure = decision_probability(probabilities, labels, regions=regions) if certainty is None else certainty
    case = PredictedCase(probabilities, labels, sure, num_classes, regions)
    return {
        **{entry: value(case) for entry, value in ENTRIES.items()},
        **agreements(labels, num_classes=num_classes, mirrored=mirrored, planes=planes, others=others),
        "class_voxels": _voxels(labels, num_classes),
    }


def no_confidence(labels: torch.Tensor, *, num_classes: int) -> dict[str, Any]:
    """The record of a label map that came without probabilities: the same keys, voxels counted, the rest None.

    Args:
        labels: (D, H, W), label values; negative ones lie outside of the image's mask and count as nothing.
        num_classes: label values, background included.

    Returns:
        the record, with ``class_voxels`` of each label value.
    """
    voxels = _voxels(labels, num_classes)
    return {
        **dict.fromkeys(ENTRIES),
        "class_mean_max_probability": dict.fromkeys(voxels),
        **agreements(labels, num_classes=num_classes),
        "class_voxels": voxels,
    }


def _voxels(labels: torch.Tensor, num_classes: int) -> dict[str, int]:
    return {str(label): int((labels == label).sum()) for label in range(num_classes)}


def agreements(
    labels: torch.Tensor,
    *,
    num_classes: int,
    mirrored: Iterable[torch.Tensor] = (),
    planes: Sequence[torch.Tensor] = (),
    others: Mapping[str, torch.Tensor | None] = NO_REFERENCE_LABELS,
) -> dict[str, float | None]:
    """The part of the record that compares the label map (D, H, W) with others of the same case.

    Args:
        labels: (D, H, W), label values.
        num_classes: label values, background included.
        mirrored: label maps of the mirrored images, mirrored back.
        planes: label maps of mosaics across each axis, if there are several.
        others: label maps of the same case by other models, by the name of their measure; None where there is none.

    Returns:
        each measure by its name, a Dice between 0 and 1, or None where it is not defined.
    """
    pairs = itertools.combinations(planes, 2)
    return {
        "flip_agreement": _mean_known(agreement(labels, other, num_classes=num_classes) for other in mirrored),
        "plane_agreement": _mean_known(agreement(one, other, num_classes=num_classes) for one, other in pairs),
        **{
            entry: None if other is None else agreement(labels, other, num_classes=num_classes)
            for entry, other in {**NO_REFERENCE_LABELS, **others}.items()
        },
        SAM_FLIP_AGREEMENT: None,
    }


def _mean_known(dices: Iterable[float | None]) -> float | None:
    # where one finds something and the other nothing, the Dice is 0; where neither does, there is none
    known = [dice for dice in dices if dice is not None]
    return float(np.mean(known)) if known else None


def agreement(labels: torch.Tensor, other: torch.Tensor, *, num_classes: int) -> float | None:
    """Dice of two label maps (D, H, W), the mean over the foreground classes that either has; None if neither has any.

    Negative values (outside the image's non-zero mask) count as background.

    Args:
        labels: (D, H, W), label values.
        other: (D, H, W), label values.
        num_classes: label values, background included.
    """
    overlaps, totals = overlaps_and_totals(labels, other, num_classes)
    found = totals > 0
    return float((2 * overlaps[found] / totals[found]).mean()) if bool(found.any()) else None


def class_dices(labels: torch.Tensor, other: torch.Tensor, *, num_classes: int) -> dict[str, float | None]:
    """Dice of two label maps (D, H, W) by foreground label value, as text; None for a class that neither has.

    Args:
        labels: (D, H, W), label values; negative ones count as background, as in :func:`agreement`.
        other: (D, H, W), label values.
        num_classes: label values, background included.
    """
    pairs = zip(*(counts.tolist() for counts in overlaps_and_totals(labels, other, num_classes)), strict=True)
    return {str(label): 2 * overlap / total if total else None for label, (overlap, total) in enumerate(pairs, start=1)}


def overlaps_and_totals(
    labels: torch.Tensor, other: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels of every foreground class in both maps, and the sum of those in either; three counts over all classes,
    not three passes for each of them.

    Args:
        labels: label values, of any shape; negative ones count as background.
        other: label values of the same voxels.
        num_classes: label values, background included.

    Returns:
        two tensors (num_classes - 1,) in double precision, without the background.
    """
    totals = _class_sizes(labels, num_classes) + _class_sizes(other, num_classes)
    return _class_sizes(labels[labels == other], num_classes), totals


def _class_sizes(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Voxels of every foreground class, (num_classes - 1,) in double precision."""
    counts = torch.bincount(labels.flatten().clamp(min=0), minlength=num_classes)
    return counts[1:num_classes].double()


def expected_dice(probabilities: torch.Tensor, labels: torch.Tensor, *, regions: bool) -> float | None:
    """The Dice to be expected if the probabilities were calibrated: 2 sum_{v in P} p(v) / (|P| + sum_v p(v)).

    P is what was decided to be the class, p its probability: the ratio of the expected overlap to the expected sizes.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        labels: (D, H, W), the label values decided on.
        regions: which of the two.

    Returns:
        the mean over the predicted classes (or regions); None without any.
    """
    dices = []
    for probability, decided in _foreground(probabilities, labels, regions=regions):
        size = int(decided.sum())
        if size:
            inside = float(probability[decided].double().sum())
            dices.append(2 * inside / (size + float(probability.double().sum())))
    return float(np.mean(dices)) if dices else None


def _foreground(
    probabilities: torch.Tensor, labels: torch.Tensor, *, regions: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Probability and decision (D, H, W) of every foreground class or region."""
    if regions:
        yield from ((probability, probability > 0.5) for probability in probabilities)
    else:
        yield from ((probabilities[label], labels == label) for label in range(1, len(probabilities)))


def normalised_entropy(probabilities: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Entropy over its maximum, from 0 (sure) to 1 (no idea), voxel by voxel.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        regions: which of the two.

    Returns:
        (D, H, W). Softmax: -sum_c p_c log p_c / log C. Regions: the mean over regions of the entropy of (p, 1 - p).
    """
    entropy = torch.zeros(probabilities.shape[1:], dtype=torch.float64)
    for probability in probabilities:
        entropy -= torch.xlogy(probability, probability).double()
        if regions:
            entropy -= torch.xlogy(1 - probability, 1 - probability).double()
    return entropy / (len(probabilities) * math.log(2) if regions else math.log(len(probabilities)))


def near_boundary(labels: torch.Tensor) -> torch.Tensor:
    """Voxels (D, H, W) with another label within a box of ``BOUNDARY_WIDTH`` voxels to each side."""
    size = 2 * BOUNDARY_WIDTH + 1
    values = labels[None, None].float()
    highest = F.max_pool3d(values, size, stride=1, padding=BOUNDARY_WIDTH)
    lowest = -F.max_pool3d(-values, size, stride=1, padding=BOUNDARY_WIDTH)
    return (highest != lowest)[0, 0]


def _mean_over(values: torch.Tensor, mask: torch.Tensor) -> float | None:
    return _mean(values[mask]) if bool(mask.any()) else None


def _mean(values: torch.Tensor) -> float:
    return float(values.mean(dtype=torch.float64))
