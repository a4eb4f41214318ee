"""NIfTI files as nibabel reads them, without two of its limits: gzip's checksum, and rounded quaternions."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.imageglobals import logger
from numpy.typing import NDArray

_BLOCK = 2**20
"""Bytes that are read at a time of what comes after the voxels."""


class _Header(nibabel.Nifti1Header):
    """Quaternions b, c, d that rounding has made a little longer than 1 are scaled to 1, as ITK does."""

    def get_qform_quaternion(self) -> Any:
        """w, x, y, z; nibabel raises a ValueError where there is no w."""
        rest = np.array([float(self._structarr[f"quatern_{axis}"]) for axis in "bcd"])
        length = float(np.linalg.norm(rest))
        return np.array([0.0, *(rest / length)]) if length > 1 else super().get_qform_quaternion()


class _Image(nibabel.Nifti1Image):
    header_class = _Header


def open_nifti(file: Path) -> Any:
    """A file as nibabel's image, whose voxels are not read yet.

    Args:
        file: ``.nii`` or ``.nii.gz``.

    Raises:
        Exception: whatever nibabel and zlib raise of a file that is not there, damaged, or no NIfTI file.
    """
    with _quiet():
        is_nifti1 = file.is_file() and _Image.path_maybe_image(file)[0]
        return _Image.from_filename(file) if is_nifti1 else nibabel.load(file)


def read_voxels(file: Path, *, as_stored: bool = False) -> NDArray[Any]:
    """All voxels (x, y, z, and further axes), from a file that is read to its end.

    nibabel alone stops after the last voxel, before gzip's checksum of them.

    Args:
        file: ``.nii`` or ``.nii.gz``.
        as_stored: without the slope and intercept of the header.

    Raises:
        Exception: whatever nibabel and zlib raise of a damaged file.
    """
    image = open_nifti(file)
    if not file.name.endswith(".gz"):
        return _array(image, as_stored)
    with _quiet(), gzip.open(file) as stream:
        voxels = _array(type(image).from_stream(stream), as_stored)
        _read_to_end(stream)
    return voxels


def _read_to_end(stream: gzip.GzipFile) -> None:
    try:
        while stream.read(_BLOCK):
            pass
    except gzip.BadGzipFile as error:
        # the checksum has been compared; other readers ignore what follows it, too
        if not str(error).startswith("Not a gzipped file"):
            raise


def _array(image: Any, as_stored: bool) -> NDArray[Any]:
    return np.asanyarray(image.dataobj.get_unscaled() if as_stored else image.dataobj)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nibabel not print what it corrects in a header."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
