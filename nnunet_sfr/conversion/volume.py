"""A volume in memory: its voxels and where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.errors import UserError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's coordinates grow to the right, to the front and up; DICOM's and ITK's to the left, to the back and up."""
_SHEAR_TOLERANCE = 0.02
"""How far the axes of an oblique header may be from right angles (about a degree) to count as rounding."""
_ITK_SHEAR = 1e-5
"""Below this an ITK reader, which wants right angles, takes a header as it is."""


@dataclass(frozen=True)
class Volume:
    """A volume in memory.

    Args:
        voxels: (x, y, z), as the file stores them.
        affine: (4, 4), from voxel indices to mm; x to the right, y to the front, z upwards.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) in mm."""
        return spacing_of(self.affine)

    def oriented(self) -> Volume:
        """Axes turned so that the indices grow to the patient's left, back and head, as in DICOM."""
        orientation = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(self.affine), nibabel.orientations.axcodes2ornt(("L", "P", "S"))
        )
        turned = nibabel.orientations.apply_orientation(self.voxels, orientation)
        affine = self.affine @ nibabel.orientations.inv_ornt_aff(orientation, self.voxels.shape)
        return Volume(turned, affine)

    def crop(self, box: Sequence[tuple[int, int]]) -> Volume:
        """The part from the first to before the last index on every axis."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ [start for start, _ in box]
        return Volume(self.voxels[tuple(slice(*ends) for ends in box)], affine)


def spacing_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) lengths of a voxel in mm."""
    lengths: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return lengths


def mapped(voxels: NDArray[Any], mapping: Mapping[int, int]) -> NDArray[np.uint8]:
    """Every label value replaced; all values are keys of the mapping.

    Args:
        voxels: label values of any shape.
        mapping: new value by old value.
    """
    table = np.zeros(max(mapping) + 1, np.uint8)
    for value, new in mapping.items():
        table[value] = new
    result: NDArray[np.uint8] = table[voxels.astype(np.int64)]
    return result


def right_angled(affine: NDArray[np.float64], shape: Sequence[int], file: Path) -> NDArray[np.float64]:
    """An affine with the nearest axes at right angles, about the volume's centre; the same where they are so already.

    Args:
        affine: (4, 4), from voxels to mm.
        shape: (x, y, z) of the volume.
        file: named in errors.

    Raises:
        UserError: they are too far from it.
    """
    spacing = spacing_of(affine)
    axes = affine[:3, :3] / spacing
    shear = np.abs(axes.T @ axes - np.eye(3)).max()
    if shear < _ITK_SHEAR:
        return affine
    if shear > _SHEAR_TOLERANCE:
        raise UserError(
            f"{file}: the axes of its header are not at right angles (the cosine between two is {shear:.2g}); "
            "resample the volume to a grid that is"
        )
    left, _, right = np.linalg.svd(axes)
    rotated = affine.copy()
    rotated[:3, :3] = (left @ right) * spacing
    centre = (np.asarray(shape) - 1) / 2
    rotated[:3, 3] = affine[:3, 3] + (affine[:3, :3] - rotated[:3, :3]) @ centre
    return rotated
