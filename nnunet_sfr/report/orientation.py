"""How a preprocessed array lies in the patient, so that every picture has the head up and the patient's right at left.

nnU-Net keeps the axes of the file, in the order of its reader (and of the plan's ``transpose_forward``). Images whose
format says nothing of the patient (TIFF, PNG) are taken to be axial slices, as a NIfTI of identity orientation is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

FROM_LPS = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
"""World axes (x to the left, y to posterior, z to superior) in the order of our pictures: (z, y, x)."""
FROM_RAS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]])
"""The same for nibabel's world, whose x goes to the right and y to anterior."""


@dataclass(frozen=True)
class Orientation:
    """From the axes of an array to (inferior to superior, anterior to posterior, the patient's right to left).

    Args:
        axes: which of these three each axis of the array is nearest to.
        signs: 1 where it runs that way, -1 where it runs against it.
        is_known: whether the file says so.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)
    is_known: bool = True

    def turn(self, volume: np.ndarray) -> np.ndarray:
        """A view of an array of three axes with its axes turned."""
        turned: np.ndarray = nibabel.orientations.apply_orientation(
            volume, list(zip(self.axes, self.signs, strict=True))
        )
        return turned

    def turn_back(self, volume: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`turn`."""
        back: np.ndarray = volume.transpose(self.axes)[tuple(slice(None, None, sign) for sign in self.signs)]
        return back

    def turn_spacing(self, spacing: Sequence[float]) -> tuple[float, float, float]:
        """Spacing in mm along the turned axes."""
        z, y, x = (spacing[self.axes.index(axis)] for axis in range(3))
        return z, y, x

    def turn_voxel(self, voxel: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
        """Where a voxel lies after :meth:`turn`.

        Args:
            voxel: indices along the axes of the array.
            shape: of the array.

        Returns:
            (z, y, x).
        """
        moved = [
            index if sign > 0 else length - 1 - index
            for index, sign, length in zip(voxel, self.signs, shape, strict=True)
        ]
        z, y, x = (moved[self.axes.index(axis)] for axis in range(3))
        return z, y, x


UNKNOWN_ORIENTATION = Orientation(is_known=False)
"""Axes as they are, of a file that does not say how the patient lies."""


def find_orientation(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> Orientation:
    """The orientation of a preprocessed case.

    Args:
        properties: of the case, as nnU-Net's preprocessing recorded them.
        transpose_forward: of the plan.
    """
    directions = _directions(properties)
    is_known = directions is not None
    if directions is None:
        directions = np.eye(3)
    # columns are the axes of the preprocessed array
    directions = directions[:, list(transpose_forward)]
    nearest = nibabel.io_orientation(np.block([[directions, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]))
    if not np.isfinite(nearest).all():  # a header whose axes are not independent
        return UNKNOWN_ORIENTATION
    first, second, third = ((int(axis), int(sign)) for axis, sign in nearest)
    return Orientation((first[0], second[0], third[0]), (first[1], second[1], third[1]), is_known)


def _directions(properties: Mapping[str, Any]) -> np.ndarray | None:
    """(3, 3), one column for each axis of the reader's array; None where the file says nothing.

    Both of nnU-Net's readers that know the patient reverse the order of the file's axes.
    """
    if "sitk_stuff" in properties:
        cosines = np.array(properties["sitk_stuff"]["direction"], dtype=float)
        if cosines.size != 9:  # a file of two dimensions
            return None
        axes: np.ndarray = FROM_LPS @ cosines.reshape(3, 3)[:, ::-1]
        return axes
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), dtype=float)
        axes = FROM_RAS @ affine[:3, :3][:, ::-1]
        return axes
    return None
