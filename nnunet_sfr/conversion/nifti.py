"""NIfTI files of public data sets: found, read strictly, compared, and written on a grid that nnU-Net reads."""

from __future__ import annotations

import gzip
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from nnunet_sfr.conversion.source_dataset import ENDING
from nnunet_sfr.conversion.volume import LPS_TO_RAS, Volume, right_angled, spacing_of
from nnunet_sfr.data.nifti_files import open_nifti, read_voxels
from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import last_line, shortest, times

NIFTI = (".nii.gz", ".nii")
_GRID_TOLERANCE = 0.05
"""Of a voxel: how far a corner of a label may lie from its image's. Headers are rounded; a shift is a voxel or more."""

_DAMAGE = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel and gzip raise of a file that is damaged or no NIfTI file."""


def find_nifti(folder: Path, stem: str) -> Path | None:
    """``<stem>.nii.gz`` or ``<stem>.nii``.

    Args:
        folder: to look in.
        stem: name of the file without its ending.

    Returns:
        None if neither is there.

    Raises:
        UserError: both are there.
    """
    files = [file for ending in NIFTI if (file := folder / f"{stem}{ending}").is_file()]
    if len(files) > 1:
        raise UserError(f"{files[1]}: lies there as {files[0].name} too; remove one of the two")
    return files[0] if files else None


def index_files(files: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Files by the group of the pattern that their whole names match; others are left out.

    Args:
        files: with any names.
        pattern: with one group, for :func:`re.fullmatch`.

    Raises:
        UserError: two files have the same key.
    """
    found: dict[str, Path] = {}
    for file in sorted(files):
        match = re.fullmatch(pattern, file.name)
        if match is None:
            continue
        if match[1] in found:
            raise UserError(f"{file}: {match[1]} lies there twice, see {found[match[1]]}; remove one of the two")
        found[match[1]] = file
    return found


def read_affine(file: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Size (x, y, z) and affine from the header alone.

    Raises:
        UserError: it is no NIfTI file, or none with three dimensions and a positive spacing.
    """
    image = _open(file)
    shape, affine = tuple(map(int, image.shape)), np.asarray(image.affine, np.float64)
    if len(shape) != 3:
        raise UserError(f"{file}: has {len(shape)} dimensions where a volume has 3; replace it")
    spacing = spacing_of(affine)
    if not np.all(np.isfinite(affine)) or spacing.min() <= 0:
        numbers = times(spacing)
        raise UserError(f"{file}: has a spacing of {numbers} mm in its header; it must be positive and finite")
    return shape, affine


def read_volume(file: Path) -> Volume:
    """Read all voxels.

    Raises:
        UserError: the file is damaged, cut off or has NaN or infinite voxels.
    """
    _, affine = read_affine(file)
    try:
        voxels = read_voxels(file)
    except _DAMAGE as error:
        raise UserError(f"{file}: its voxels cannot be read ({last_line(error)}); replace the file") from None
    if voxels.dtype.kind == "f" and not np.all(np.isfinite(voxels)):
        raise UserError(f"{file}: has NaN or infinite voxels; replace the file")
    return Volume(voxels, affine)


def require_grid(file: Path, other: Path, case: str) -> None:
    """Refuse a file whose corners lie elsewhere than those of another one.

    Args:
        file: to check.
        other: whose grid it must have.
        case: named in errors.

    Raises:
        UserError: naming file and case.
    """
    (shape, affine), (wanted_shape, wanted) = read_affine(file), read_affine(other)
    named = other.name if other.name != file.name else other
    if shape != wanted_shape:
        raise UserError(f"{file}: case {case} has {times(shape)} voxels, but {named} has {times(wanted_shape)}")
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shape], [1])).reshape(4, -1)
    # in voxels of the other one
    away = np.abs(np.linalg.inv(wanted) @ affine @ corners - corners)[:3].max()
    if away > _GRID_TOLERANCE:
        raise UserError(
            f"{file}: case {case} lies elsewhere than {named}, by up to {away:.2g} voxels (origin, spacing or "
            "direction of the header); resample it to the same grid"
        )


def require_values(file: Path, voxels: NDArray[Any], case: str, known: Mapping[int, str]) -> None:
    """Refuse label values that the data set does not have.

    Args:
        file: named in errors.
        voxels: label values of any shape.
        case: named in errors.
        known: label values that there may be, with their names.

    Raises:
        UserError: naming file, case and value.
    """
    unknown = voxels[~np.isin(voxels, list(known))]
    if unknown.size:
        names = ", ".join(f"{value} ({name})" for value, name in known.items())
        raise UserError(
            f"{file}: case {case}: its label has the value {shortest(unknown.flat[0])}, where only {names} are known; "
            "correct the label"
        )


def write_image(file: Path, target: Path) -> bool:
    """Copy an image to ``target`` (``.nii.gz``); one whose axes are not at right angles is given axes that are.

    Args:
        file: an image that SimpleITK reads.
        target: written or replaced.

    Returns:
        Whether the header was corrected: axes become the nearest ones at right angles, about the volume's centre.

    Raises:
        UserError: the axes are too far from right angles to be a matter of rounding.
    """
    shape, affine = read_affine(file)
    rotated = right_angled(affine, shape, file)
    if rotated is not affine:
        write_volume(Volume(read_volume(file).voxels, rotated), target)
        return True
    if file.name.endswith(ENDING):
        shutil.copyfile(file, target)
    else:
        with file.open("rb") as stream, gzip.open(target, "wb") as packed:
            shutil.copyfileobj(stream, packed)
    return False


def write_label_like(voxels: NDArray[np.uint8], image: Path, target: Path) -> None:
    """Write a label map (x, y, z) with the geometry of an image that was written here.

    Args:
        voxels: (x, y, z), label values.
        image: NIfTI file with the same number of voxels.
        target: written or replaced.
    """
    label = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    label.CopyInformation(sitk_header(image))
    sitk.WriteImage(label, str(target), True)


def write_volume(volume: Volume, target: Path) -> None:
    """Write a volume whose axes are at right angles.

    Args:
        volume: voxels (x, y, z) and affine in mm, to the right, to the front and up.
        target: written or replaced.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.transpose()))
    affine = LPS_TO_RAS @ volume.affine
    image.SetSpacing([float(length) for length in volume.spacing])
    image.SetOrigin([float(value) for value in affine[:3, 3]])
    image.SetDirection([float(value) for value in (affine[:3, :3] / volume.spacing).ravel()])
    sitk.WriteImage(image, str(target), True)


def sitk_header(file: Path) -> sitk.Image:
    """An image of the geometry that SimpleITK, nnU-Net's reader, gives a file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    header = sitk.Image(reader.GetSize(), sitk.sitkUInt8)
    header.SetSpacing(reader.GetSpacing())
    header.SetOrigin(reader.GetOrigin())
    header.SetDirection(reader.GetDirection())
    return header


def _open(file: Path) -> Any:
    try:
        return open_nifti(file)
    except _DAMAGE as error:
        raise UserError(f"{file}: cannot be read as NIfTI ({last_line(error)}); replace it") from None
