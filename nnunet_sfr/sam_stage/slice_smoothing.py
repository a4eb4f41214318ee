"""Probabilities smoothed across slices: SAM sees slices side by side, so neighbours need not agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.ndimage import gaussian_filter1d


def smooth_across_slices(probabilities: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Smooth by a Gaussian along one axis; at the ends the last slice is repeated. Sums over the classes stay.

    Args:
        probabilities: (K, D, H, W).
        axis: 0, 1 or 2, across which the slices lie.
        sigma: standard deviation in slices; 0 changes nothing.

    Returns:
        (K, D, H, W), float32, a new tensor if anything changed.
    """
    if sigma == 0:
        return probabilities
    smoothed = torch.empty_like(probabilities, dtype=torch.float32)
    for smooth, rough in zip(smoothed.numpy(), probabilities.numpy(), strict=True):  # class by class, for the memory
        gaussian_filter1d(rough, sigma, axis=axis, output=smooth, mode="nearest")
    return smoothed


def sigma_in_slices(millimetres: float, spacing: Sequence[float], axis: int) -> float:
    """The same width in slices; 0 in a 2D configuration, whose slices may lie anywhere.

    Args:
        millimetres: standard deviation.
        spacing: of the nnU-Net configuration in mm: (D, H, W), or (H, W) in 2D.
        axis: 0, 1 or 2, across which the slices lie.
    """
    return millimetres / spacing[axis] if len(spacing) == 3 else 0.0
