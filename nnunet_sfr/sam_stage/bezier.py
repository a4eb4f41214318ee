"""Random monotone intensity curves, one per slice: the intensity augmentation of the authors' fine-tuning code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from torch import Tensor

_SAMPLES = 1000
"""Points at which a curve is sampled; between them it is linear."""


class BezierCurveTransform(ImageOnlyTransform):
    """Bend the intensities of slices by random monotone curves; for nnU-Net's augmentation pipelines.

    Args:
        probability: chance that a slice (of one channel) is changed.
        slice_axis: across which slices are taken, 0 for D, 1 for H, 2 for W.
    """

    def __init__(self, probability: float = 1.0, slice_axis: int = 0) -> None:
        super().__init__()
        self.probability = probability
        self.slice_axis = slice_axis

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        # NumPy's global generator is the one that nnU-Net seeds in each worker.
        return {"rng": np.random.default_rng(np.random.randint(2**31))}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return bend_intensities(img, params["rng"], probability=self.probability, slice_axis=self.slice_axis)


def bend_intensities(
    patch: Tensor, rng: np.random.Generator, *, probability: float = 1.0, slice_axis: int = 0
) -> Tensor:
    """Map each slice of each channel through a curve of its own that rises from the slice's minimum to its maximum.

    Args:
        patch: [C, D, H, W], normalised intensities; left as it is.
        rng: source of the curves.
        probability: chance that a slice is changed.
        slice_axis: across which slices are taken, 0 for D, 1 for H, 2 for W.

    Returns:
        A new tensor of the same shape and dtype. The order of intensities, and each slice's extremes, are kept.
    """
    bent = patch.clone()
    # both are views: [C, slices, ...]
    slices, bent_slices = patch.movedim(1 + slice_axis, 1), bent.movedim(1 + slice_axis, 1)
    for channel, index in np.argwhere(rng.random(slices.shape[:2]) < probability):
        bent_slices[channel, index] = _bend(slices[channel, index], random_monotone_curve(rng))
    return bent


def random_monotone_curve(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sample a cubic Bezier curve from (0, 0) to (1, 1) whose inner control points are uniform in the unit square.

    Such a curve rises in x and y: with inner coordinates a, b the slope's Bernstein coefficients are a, b - a, 1 - b,
    and a - b <= sqrt(a (1 - b)) for all a, b in [0, 1], so the slope is nowhere negative.

    Returns:
        x and y, both ascending from 0 to 1.
    """
    t = np.linspace(0.0, 1.0, _SAMPLES)
    basis = np.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    inner = rng.random((2, 2))
    x, y = (basis.T @ np.array([first, second, 1.0]) for first, second in inner)
    return x, y


def _bend(image: Tensor, curve: tuple[np.ndarray, np.ndarray]) -> Tensor:
    low, high = image.min(), image.max()
    if not high > low:
        return image
    share = ((image - low) / (high - low)).double().cpu().numpy()
    bent = torch.from_numpy(np.interp(share, *curve)).to(image)
    return (low + bent * (high - low)).clamp(low, high)
