"""The viewer's axes: from the array of nnU-Net's reader to right, anterior, superior, and back, voxel by voxel.

The page gets every volume with its axes along the patient's, so that it needs no geometry of its own: what it draws
into the label map it was sent is what comes back. Voxels are only moved, never interpolated. An oblique image is shown
along the axes that are nearest to it, without the angle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

from nnunet_sfr.report.orientation import Orientation, find_orientation

_HEADER_BYTES = 352
"""Of a NIfTI-1 file: the header, and four zeros that say that no extension follows."""


@dataclass(frozen=True)
class ViewerGrid:
    """How the raw image of a case lies in the viewer.

    Args:
        raw_shape: (slices, height, width) of the array that nnU-Net's reader gives.
        raw_spacing: in mm, the same axes.
        orientation: from the reader's axes to the patient's.
    """

    raw_shape: tuple[int, int, int]
    raw_spacing: tuple[float, float, float]
    orientation: Orientation

    @classmethod
    def of(cls, properties: Mapping[str, Any], transpose_backward: Sequence[int]) -> ViewerGrid:
        """The grid of a raw image.

        Args:
            properties: of the case, as nnU-Net's preprocessing recorded them.
            transpose_backward: of the plan.
        """
        cropped_from = properties["shape_before_cropping"]
        depth, height, width = (int(cropped_from[axis]) for axis in transpose_backward)
        z, y, x = (float(step) for step in properties["spacing"])
        return cls((depth, height, width), (z, y, x), find_orientation(properties, (0, 1, 2)))

    @property
    def voxels(self) -> int:
        return int(np.prod(self.raw_shape))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in the viewer."""
        z, y, x = (self.raw_shape[self.orientation.axes.index(axis)] for axis in range(3))
        return z, y, x

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(z, y, x) in mm in the viewer."""
        return self.orientation.turn_spacing(self.raw_spacing)

    def to_viewer(self, volume: np.ndarray) -> np.ndarray:
        """A view of a volume of the reader as (z, y, x), z to superior, y to anterior, x to the patient's right."""
        turned: np.ndarray = self.orientation.turn(volume)[:, ::-1, ::-1]
        return turned

    def from_viewer(self, volume: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_viewer`."""
        return np.ascontiguousarray(self.orientation.turn_back(volume[:, ::-1, ::-1]))


def nifti_file(volume: np.ndarray, spacing: Sequence[float], window: tuple[float, float]) -> memoryview:
    """An uncompressed NIfTI-1 file of a volume in the viewer's axes.

    Args:
        volume: (z, y, x).
        spacing: (z, y, x) in mm.
        window: the values to be shown black and white at first.
    """
    header = nibabel.Nifti1Header()
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape[::-1])
    affine = np.diag([*reversed(spacing), 1.0])
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["cal_min"], header["cal_max"] = window
    header["vox_offset"] = _HEADER_BYTES
    header["magic"] = b"n+1"
    content = np.empty(_HEADER_BYTES + volume.nbytes, np.uint8)
    head = header.as_byteswapped("<").binaryblock.ljust(_HEADER_BYTES, b"\0")
    content[:_HEADER_BYTES] = np.frombuffer(head, np.uint8)
    # the only copy of what can be hundreds of megabytes
    content[_HEADER_BYTES:].view(volume.dtype.newbyteorder("<")).reshape(volume.shape)[...] = volume
    return content.data
