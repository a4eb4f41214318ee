"""Volumes in millilitres, and which of them are far from those of the other cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MM3_PER_ML = 1000.0
LEAST_CASES = 8
"""With fewer cases nothing is called an outlier."""
DEVIATIONS = 3.5
"""An outlier is more than so many robust standard deviations from the median."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of normally distributed numbers over their median absolute deviation (MAD)."""
RULE = (
    f"|log volume - median| > {DEVIATIONS} x {MAD_TO_DEVIATION} x MAD over the cases that have the class; a case "
    f"without the class where most have it; from {LEAST_CASES} cases on"
)


def volumes_ml(voxels: Mapping[str, int], spacing: Sequence[float]) -> dict[str, float]:
    """Volume by label value, from voxels by label value; the background is left out.

    Args:
        voxels: by label value, as text.
        spacing: in mm.
    """
    voxel = float(np.prod(spacing)) / MM3_PER_ML
    return {label: count * voxel for label, count in voxels.items() if label != "0"}


def find_outliers(volumes: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Label values (as text) of each case whose volume is far from that of the others, by :data:`RULE`.

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
