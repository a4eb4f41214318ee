"""Where the target of a label map is: the point through which its pictures are cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component_cc3d
from scipy.ndimage import find_objects

CONNECTIVITY = 26
"""Voxels that share a corner are connected."""

Voxel = tuple[int, int, int]


def find_centre(labels: np.ndarray, spacing: Sequence[float]) -> Voxel:
    """The voxel of the largest connected component of all foreground that is nearest to its centroid.

    The centroid itself can lie outside (of an L or a ring). Without foreground, the middle of the image.

    Args:
        labels: (D, H, W); foreground is above 0.
        spacing: (D, H, W) in mm.
    """
    foreground = labels > 0
    if not foreground.any():
        return _voxel([length // 2 for length in labels.shape])
    box = bounding_box(foreground)
    component = np.argwhere(remove_all_but_largest_component_cc3d(foreground[box], CONNECTIVITY))
    distances = (((component - component.mean(axis=0)) * np.asarray(spacing)) ** 2).sum(axis=1)
    return _voxel(component[distances.argmin()] + [side.start for side in box])


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask, which has to have a voxel.

    Args:
        mask: bool, of any shape.
    """
    box: tuple[slice, ...] = find_objects(mask.view(np.uint8))[0]
    return box


def _voxel(numbers: Sequence[int] | np.ndarray) -> Voxel:
    slice_, row, column = (int(number) for number in numbers)
    return slice_, row, column
