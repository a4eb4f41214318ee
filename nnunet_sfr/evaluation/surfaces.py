"""Distances between the surfaces of two masks, computed by MONAI, and the numbers that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from nnunet_sfr.evaluation.rules import HD_PERCENTILE

_ROUNDING = 1e-6
"""Relative. MONAI's distances are of single precision, and a tolerance of 2.1 mm has to hold three voxels of 0.7 mm."""


@dataclass(frozen=True)
class SurfaceDistances:
    """How far every surface voxel of one mask is from the nearest surface voxel of the other; both are never empty.

    Args:
        prediction_to_truth: (surface voxels of the prediction,), in the unit of the spacing.
        truth_to_prediction: (surface voxels of the truth,).
    """

    prediction_to_truth: NDArray[np.float64]
    truth_to_prediction: NDArray[np.float64]

    @property
    def hd95(self) -> float:
        """95th percentile of the distances in both directions, pooled."""
        pooled = np.concatenate([self.prediction_to_truth, self.truth_to_prediction])
        return float(np.percentile(pooled, HD_PERCENTILE))

    @property
    def asd(self) -> float:
        """Mean distance from the prediction's surface to the truth's, this direction only."""
        return float(np.mean(self.prediction_to_truth))

    @property
    def assd(self) -> float:
        """Mean of the mean distances in both directions, each of the same weight."""
        return (self.asd + float(np.mean(self.truth_to_prediction))) / 2

    def nsd(self, tolerance: float) -> float:
        """Share of all surface voxels, of both masks, that lie within ``tolerance`` of the other surface."""
        limit = tolerance * (1 + _ROUNDING)
        near = np.count_nonzero(self.prediction_to_truth <= limit) + np.count_nonzero(self.truth_to_prediction <= limit)
        return float(near / (self.prediction_to_truth.size + self.truth_to_prediction.size))


def surface_distances(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    *,
    ignored: NDArray[np.bool_] | None = None,
) -> SurfaceDistances | None:
    """Distances between two masks, neither of which is empty.

    The surface of a mask are its voxels that share a face with a voxel outside the mask, or lie at the border of the
    image. Distances are between centres of voxels.

    Args:
        prediction: (D, H, W) or (H, W).
        truth: the same shape.
        spacing: of the axes, in mm.
        ignored: voxels that are not known; part of neither mask. That a mask ends at one of them makes
            no surface: both masks would end there, and so seem to agree.

    Returns:
        The distances; None if ignored voxels hide the whole surface of one of the masks.
    """
    # the margin keeps the neighbours, which say whether a voxel is surface; the result is that of the whole image
    tight = find_objects((prediction | truth).view(np.uint8))[0]
    box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in tight)
    prediction, truth = prediction[box], truth[box]
    unknown = np.zeros_like(truth) if ignored is None else ignored[box]
    edges = get_mask_edges(prediction | unknown, truth | unknown, crop=False)
    of_prediction, of_truth = edges[0] & prediction, edges[1] & truth
    if not (of_prediction.any() and of_truth.any()):
        return None
    return SurfaceDistances(
        _nearest(of_prediction, of_truth, spacing),
        _nearest(of_truth, of_prediction, spacing),
    )


def _nearest(start: NDArray[np.bool_], target: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of every voxel of ``start`` to the nearest of ``target``."""
    return np.asarray(get_surface_distance(start, target, spacing=tuple(spacing)), np.float64)
