"""The metrics of one mask against its truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.evaluation.surfaces import SurfaceDistances, surface_distances


@dataclass(frozen=True)
class Metrics:
    """One case and class. Undefined values are NaN.

    Args:
        dice: 2 TP / (2 TP + FP + FN).
        jaccard: TP / (TP + FP + FN).
        hd95_mm: 95th percentile of the surface distances in both directions, pooled. In pixels where the format of the
            images has no spacing, as all distances.
        asd_mm: mean distance from the prediction's surface to the truth's.
        assd_mm: mean of the mean distances in both directions.
        nsd: share of both surfaces that lies within the tolerance of the other.
        truth_ml: volume; NaN for pictures.
        prediction_ml: volume; NaN for pictures.
        tp: voxels in both masks.
        fp: voxels in the prediction only.
        fn: voxels in the truth only.
    """

    dice: float
    jaccard: float
    hd95_mm: float
    asd_mm: float
    assd_mm: float
    nsd: float
    truth_ml: float
    prediction_ml: float
    tp: int
    fp: int
    fn: int

    @property
    def is_empty_truth(self) -> bool:
        """Whether the truth has no voxel, and the prediction has."""
        return self.tp + self.fn == 0 and self.fp > 0

    @property
    def is_empty_prediction(self) -> bool:
        """Whether the prediction has no voxel, and the truth has."""
        return self.tp + self.fp == 0 and self.fn > 0

    @property
    def is_both_empty(self) -> bool:
        return self.tp + self.fp + self.fn == 0


def measure(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    *,
    voxel_ml: float,
    nsd_tolerance_mm: float,
    ignored: NDArray[np.bool_] | None = None,
) -> Metrics:
    """Compare a mask with its truth; :data:`nnunet_sfr.evaluation.rules.RULES` says what holds for empty ones.

    Args:
        prediction: (D, H, W) or (H, W).
        truth: the same shape.
        spacing: of the axes, in mm.
        voxel_ml: volume of a voxel; NaN if it has none.
        nsd_tolerance_mm: how far apart surfaces may be to agree.
        ignored: the same shape; these voxels do not count.
    """
    if ignored is not None:
        prediction, truth = prediction & ~ignored, truth & ~ignored
    tp = int(np.count_nonzero(prediction & truth))
    in_prediction, in_truth = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    fp, fn = in_prediction - tp, in_truth - tp
    if in_prediction and in_truth:
        between = surface_distances(prediction, truth, spacing, ignored=ignored)
        hd95, asd, assd, nsd = _of_surfaces(between, nsd_tolerance_mm)
    elif in_prediction or in_truth:
        worst = diagonal(truth.shape, spacing)
        hd95, asd, assd, nsd = worst, worst, worst, 0.0
    else:
        hd95 = asd = assd = nsd = math.nan
    return Metrics(
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        jaccard=_ratio(tp, tp + fp + fn),
        hd95_mm=hd95,
        asd_mm=asd,
        assd_mm=assd,
        nsd=nsd,
        truth_ml=in_truth * voxel_ml,
        prediction_ml=in_prediction * voxel_ml,
        tp=tp,
        fp=fp,
        fn=fn,
    )


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Length of the image from corner to corner, in mm; the centres of any two voxels are closer.

    Args:
        shape: in voxels.
        spacing: in mm, the same axes.
    """
    return math.hypot(*(length * step for length, step in zip(shape, spacing, strict=True)))


def _of_surfaces(between: SurfaceDistances | None, tolerance: float) -> tuple[float, float, float, float]:
    if between is None:
        return math.nan, math.nan, math.nan, math.nan
    return between.hd95, between.asd, between.assd, between.nsd(tolerance)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
