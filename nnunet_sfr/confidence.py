"""How sure a model is of a label map: the one definition, for SAM and for nnU-Net's networks."""

from __future__ import annotations

from typing import Any

import torch


def decision_probability(probabilities: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """The probability that a model gives to what it decided, voxel by voxel.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        regions: which of the two.

    Returns:
        (D, H, W) in double precision. Softmax: max_c p_c, as in eq. 8 of the paper. Regions: the product over regions
        of max(p_r, 1 - p_r), which is the probability of exactly those regions that are above 0.5, if they were
        independent.
    """
    if not regions:
        return probabilities.amax(dim=0).double()
    decision = torch.ones(probabilities.shape[1:], dtype=torch.float64)
    for region in probabilities:  # one at a time: all of them in double precision can fill the memory
        decision *= torch.maximum(region, 1 - region)
    return decision


def confidence_record(
    probabilities: torch.Tensor, labels: torch.Tensor, *, num_classes: int, regions: bool
) -> dict[str, Any]:
    """Confidence of one case.

    Args:
        probabilities: (C, D, H, W), softmax over label values, or one sigmoid per region.
        labels: (D, H, W), the label values decided on.
        num_classes: number of label values, background included.
        regions: whether ``probabilities`` are those of regions.

    Returns:
        ``mean_max_probability``: eq. 8 of the paper, the mean over all voxels of :func:`decision_probability`;
        ``foreground_mean_max_probability``: the same mean over predicted foreground, None where there is none
        (background fills most of a volume and hides how sure the model is of the organ);
        ``class_mean_max_probability`` and ``class_voxels``: by label value, as strings, for JSON.
    """
    sure = decision_probability(probabilities, regions=regions)
    masks = {str(label): labels == label for label in range(num_classes)}
    return {
        "mean_max_probability": float(sure.mean()),
        "foreground_mean_max_probability": _mean_over(sure, labels > 0),
        "class_mean_max_probability": {label: _mean_over(sure, mask) for label, mask in masks.items()},
        "class_voxels": {label: int(mask.sum()) for label, mask in masks.items()},
    }


def no_confidence(labels: torch.Tensor, *, num_classes: int) -> dict[str, Any]:
    """The record of a label map that came without probabilities: the same keys, voxels counted, the rest None."""
    voxels = {str(label): int((labels == label).sum()) for label in range(num_classes)}
    return {
        "mean_max_probability": None,
        "foreground_mean_max_probability": None,
        "class_mean_max_probability": dict.fromkeys(voxels),
        "class_voxels": voxels,
    }


def _mean_over(values: torch.Tensor, mask: torch.Tensor) -> float | None:
    return float(values[mask].mean()) if bool(mask.any()) else None
