"""Images and label maps read with nnU-Net's readers, and what those pass over found: damaged voxels, wrong spacings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.openers import ImageOpener
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from numpy.typing import NDArray

from nnunet_sfr.data.nifti_files import open_nifti, read_voxels
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.data.sidecars import spacing_file
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.silence import without_printing
from nnunet_sfr.wording import last_line, times

Kind = Literal["image", "label"]

SMALLEST_SPACING, LARGEST_SPACING = 1e-9, 1e7
"""In mm; the largest is for pictures, whose readers make up a slice spacing of 999 times that of their pixels."""

LARGEST_INTENSITY = 1e15
"""The variance of 10⁸ voxels of this size is still a 32-bit float; above, normalised images would be all 0."""

_HEADER_BYTES = 2**14
_STATED_IN_TEXT = re.compile(rb"^(?:ElementSpacing\s*=|spacings:)\s*([^\n]*?)\s*$", re.MULTILINE)
"""Spacing in the headers of MetaImage and NRRD."""

_TEXT_HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")


class ContentError(Exception):
    """Something is wrong with the content of a case; never leaves :mod:`nnunet_sfr.data`."""


def read_label(reader: type[BaseReaderWriter], file: Path, case: RawCase) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read a label file, finding what readers pass over: voxels that are cut off, NaN and infinity.

    Args:
        reader: of the data set.
        file: to read.
        case: that it labels, for the messages.

    Returns:
        Label (1, and three axes, as the reader gives them), and the reader's properties: spacing in mm, geometry.

    Raises:
        UserError: saying what is wrong with the file.
    """
    try:
        return read_strictly(reader, file, case, kind="label")
    except ContentError as problem:
        raise UserError(str(problem)) from None


def read_strictly(
    reader: type[BaseReaderWriter], file: Path, case: RawCase, *, kind: Kind = "image"
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """One file as (channels, and three axes) and the reader's properties, spacing in mm among them.

    Args:
        reader: nnU-Net's, for this kind of file.
        file: to read.
        case: that it belongs to.
        kind: whether it is an image or a label map.

    Raises:
        ContentError: it cannot be read, is of another form, has voxels that are no numbers, or no possible spacing.
    """
    try:
        _check_header(reader, file, case, kind)
        # readers print what they then raise
        with without_printing():
            array, properties = reader().read_images((str(file),)) if kind == "image" else reader().read_seg(str(file))
    except (MemoryError, ContentError):
        raise
    except Exception as error:
        raise ContentError(
            f"{file}: {kind} of case {case.identifier} cannot be read ({last_line(error)}); replace the file"
        ) from None
    if array.ndim != 4:
        raise ContentError(f"{file}: case {case.identifier} has {array.ndim - 1} dimensions; nnU-Net takes 2 or 3")
    if kind == "label" and len(array) != 1:
        raise ContentError(
            f"{file}: the label of case {case.identifier} has {len(array)} channels (a colour picture has 3); save it "
            "with one, whose values are the labels"
        )
    _require_numbers(array, file, case)
    _require_spacing(properties["spacing"], file, case)
    return array, properties


def _check_header(reader: type[BaseReaderWriter], file: Path, case: RawCase, kind: Kind) -> None:
    if issubclass(reader, Tiff3DIO):
        check_spacing_file(file, case, kind)
    elif file.name.endswith((".nii", ".nii.gz")):
        _check_nifti(file, case)
    elif file.name.endswith(_TEXT_HEADERS):
        _check_text_header(file, case)


def check_spacing_file(image: Path, case: RawCase, kind: Kind) -> None:
    """Check the JSON file with the spacing of a TIFF volume, where there is one.

    Args:
        image: the TIFF volume.
        case: that it belongs to.
        kind: whether it is an image or a label map.

    Raises:
        ContentError: it does not hold three lengths.
    """
    file = spacing_file(image, image.suffix, is_label=kind == "label")
    if not file.is_file():
        return
    wanted = 'write {"spacing": [z, y, x]}, in mm and in the order of the axes'
    try:
        spacing = read_json(file, wanted, {"spacing": [float]})["spacing"]
    except UserError as error:
        raise ContentError(str(error)) from None
    if len(spacing) != 3:
        raise ContentError(f"{file}: spacing of case {case.identifier} is {spacing!r}; {wanted}")
    _require_spacing(spacing, file, case)


def _check_nifti(file: Path, case: RawCase) -> None:
    """Find what nnU-Net's NIfTI readers pass over: voxels cut off or damaged, and NaN, which SimpleITK takes for 0."""
    image = open_nifti(file)
    with ImageOpener(str(file)) as stream:
        header = type(image).header_class.from_fileobj(stream, check=False)
    # nibabel corrects it when it loads the image
    _require_spacing([float(length) for length in header["pixdim"][1 : 1 + min(3, len(image.shape))]], file, case)
    stored = read_voxels(file, as_stored=True)
    if stored.dtype.kind == "f":
        _require_numbers(stored, file, case)


def _check_text_header(file: Path, case: RawCase) -> None:
    """Find a spacing that is not a number, which SimpleITK takes for 1."""
    with file.open("rb") as stream:
        stated = _STATED_IN_TEXT.search(stream.read(_HEADER_BYTES))
    if stated is not None:
        _require_spacing([float(length) for length in stated[1].split()], file, case)


def _require_numbers(array: NDArray[Any], file: Path, case: RawCase) -> None:
    if not np.all(np.isfinite(array)):
        raise ContentError(f"{file}: case {case.identifier} has NaN or infinite voxels; replace them by numbers")
    largest = max(abs(float(array.max(initial=0))), abs(float(array.min(initial=0))))
    if largest > LARGEST_INTENSITY:
        raise ContentError(
            f"{file}: case {case.identifier} has a voxel of {largest:.3g}; nnU-Net's normalisation fails above "
            f"{LARGEST_INTENSITY:g}: replace it"
        )


def _require_spacing(spacing: Sequence[float], file: Path, case: RawCase) -> None:
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        wrong = "it must be positive and finite"
    elif min(spacing) < SMALLEST_SPACING or max(spacing) > LARGEST_SPACING:
        wrong = f"no voxel is smaller than {SMALLEST_SPACING:g} mm or larger than {LARGEST_SPACING:g} mm"
    else:
        return
    raise ContentError(f"{file}: case {case.identifier} has a spacing of {in_mm(spacing)}; {wrong}; correct the header")


def in_mm(spacing: Sequence[float]) -> str:
    return times(spacing) + " mm"
