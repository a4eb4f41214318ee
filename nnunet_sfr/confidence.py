"""How sure a model is of a label map: the one definition, for SAM and for the re-training model."""

from __future__ import annotations

from typing import Any

import torch


def confidence_record(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Confidence of one case.

    Args:
        probabilities: (K, D, H, W), softmax.
        labels: (D, H, W), their argmax.

    Returns:
        ``mean_max_probability``: eq. 8 of the paper, (1/N) sum over all N voxels of max_c p_c;
        ``foreground_mean_max_probability``: the same mean over predicted foreground, None where there is none
        (background fills most of a volume and hides how sure the model is of the organ);
        ``class_mean_max_probability`` and ``class_voxels``: by label value, as strings, for JSON.
    """
    highest = probabilities.amax(dim=0).double()
    classes = range(probabilities.shape[0])
    masks = {str(label): labels == label for label in classes}
    return {
        "mean_max_probability": float(highest.mean()),
        "foreground_mean_max_probability": _mean_over(highest, labels > 0),
        "class_mean_max_probability": {label: _mean_over(highest, mask) for label, mask in masks.items()},
        "class_voxels": {label: int(mask.sum()) for label, mask in masks.items()},
    }


def _mean_over(values: torch.Tensor, mask: torch.Tensor) -> float | None:
    return float(values[mask].mean()) if bool(mask.any()) else None
