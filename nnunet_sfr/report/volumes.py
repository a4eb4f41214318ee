"""Volumes in millilitres, and which of them are far from those of the other cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_sfr.data.preprocessed_grid import with_slice_distance
from nnunet_sfr.dataset import SFRDataset

MM3_PER_ML = 1000.0
LEAST_CASES = 8
"""With fewer cases nothing is called an outlier."""
DEVIATIONS = 3.5
"""An outlier is more than so many robust standard deviations from the median."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of normally distributed numbers over their median absolute deviation (MAD)."""
OUTLIER_RULE = (
    f"|log volume - median| > {DEVIATIONS} x {MAD_TO_DEVIATION} x MAD over the cases that have the class; a case "
    f"without the class where most have it; from {LEAST_CASES} cases on"
)
SLICE_THICKNESS = 1.0
"""In mm, of images that are a single slice: nnU-Net's readers give them a thickness that means nothing."""


def grid_spacing(dataset: SFRDataset, properties: Mapping[str, Any]) -> tuple[float, float, float]:
    """Spacing (D, H, W) of a preprocessed case in mm.

    A 2D configuration keeps the distance of the slices of every case as it is.

    Args:
        dataset: planned.
        properties: of the case, as nnU-Net's preprocessing recorded them.
    """
    spacing, distance = dataset.configuration["spacing"], properties["spacing"][dataset.plans["transpose_forward"][0]]
    if len(spacing) == 2 and properties["shape_after_cropping_and_before_resampling"][0] == 1:
        distance = SLICE_THICKNESS
    depth, height, width = map(float, with_slice_distance(spacing, distance))
    return depth, height, width


def volumes_ml(voxels: Mapping[str, int], spacing: Sequence[float]) -> dict[str, float]:
    """Volume by label value, from voxels by label value; the background is left out.

    Args:
        voxels: by label value, as text.
        spacing: in mm.
    """
    voxel = float(np.prod(spacing)) / MM3_PER_ML
    return {label: count * voxel for label, count in voxels.items() if label != "0"}


def find_outliers(volumes: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Label values (as text) of each case whose volume is far from that of the others, by :data:`OUTLIER_RULE`.

    Where half of the cases or more have the same volume the MAD is 0, and only missing classes are outliers.

    Args:
        volumes: by case and label value.
    """
    found: dict[str, list[str]] = {case: [] for case in volumes}
    if len(volumes) < LEAST_CASES:
        return found
    for label in sorted({label for by_label in volumes.values() for label in by_label}, key=int):
        logs = {case: np.log(by_label[label]) for case, by_label in volumes.items() if by_label.get(label, 0) > 0}
        if logs:
            values = np.array(list(logs.values()))
            median = np.median(values)
            limit = DEVIATIONS * MAD_TO_DEVIATION * np.median(np.abs(values - median))
            for case, value in logs.items():
                if 0 < limit < abs(value - median):
                    found[case].append(label)
        if 2 * len(logs) > len(volumes):
            for case in volumes.keys() - logs.keys():
                found[case].append(label)
    return found
