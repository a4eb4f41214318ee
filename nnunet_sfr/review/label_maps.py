"""Label maps between the page and the disk: checked before anything is replaced, and read back once written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_sfr.atomic import no_space
from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.data.reading import read_label
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.review.viewer_grid import ViewerGrid
from nnunet_sfr.wording import shortest

_GZIP = 16 + zlib.MAX_WBITS
_OVERHEAD = 4096
"""Bytes that compression may add, besides a thousandth."""


def largest_upload(grid: ViewerGrid) -> int:
    """Bytes of the largest compressed label map of a case."""
    return grid.voxels + grid.voxels // 1000 + _OVERHEAD


def pack(labels: np.ndarray, grid: ViewerGrid) -> bytes:
    """A label map as the page gets it: gzip of one byte a voxel, in the viewer's axes.

    Args:
        labels: (slices, height, width) on the raw grid, values up to 255.
        grid: of the case.
    """
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return compressor.compress(grid.to_viewer(labels.astype(np.uint8)).tobytes()) + compressor.flush()


def unpack(body: bytes, grid: ViewerGrid, case: str, largest_value: int) -> np.ndarray:
    """The label map that the page sent, on the raw grid.

    Args:
        body: as :func:`pack` makes it.
        grid: of the case.
        case: identifier, for the message.
        largest_value: of the data set's labels.

    Returns:
        (slices, height, width), uint8.

    Raises:
        UserError: it is no label map of this case.
    """
    what = f"what the page sent is no label map of case {case}"
    decompressor = zlib.decompressobj(_GZIP)
    try:
        content = decompressor.decompress(body, grid.voxels + 1)
    except zlib.error as error:
        raise UserError(f"{what}: {error}; nothing was changed") from None
    if len(content) != grid.voxels or not decompressor.eof or decompressor.unused_data:
        raise UserError(f"{what}, which has {grid.voxels} voxels; nothing was changed")
    volume = np.frombuffer(content, np.uint8).reshape(grid.shape)
    largest = int(volume.max())
    if largest > largest_value:
        raise UserError(f"{what}: dataset.json does not name the label {largest}; nothing was changed")
    return grid.from_viewer(volume)


def read_label_map(
    reader: type[BaseReaderWriter], file: Path, case: RawCase, grid: ViewerGrid, largest_value: int
) -> np.ndarray:
    """A label map that was saved, (slices, height, width) uint8 on the raw grid.

    Args:
        reader: nnU-Net's, for label maps of this data set.
        file: to read.
        case: named in errors.
        grid: of the raw image.
        largest_value: of the data set's labels.

    Raises:
        UserError: it cannot be read, is of another size, or holds what is no label of the data set.
    """
    labels = read_label(reader, file, case)[0][0]
    remedy = "correct or delete the file"
    if labels.shape != grid.raw_shape:
        raise UserError(f"{file}: {labels.shape} voxels, but the image has {grid.raw_shape}; {remedy}")
    wrong = labels[(labels < 0) | (labels > largest_value) | (labels != np.rint(labels))]
    if wrong.size:
        raise UserError(f"{file}: has the label {shortest(wrong.min())}, which dataset.json does not name; {remedy}")
    whole: np.ndarray = labels.astype(np.uint8)
    return whole


def write_label_map(
    labels: np.ndarray, file: Path, case: RawCase, properties: Mapping[str, Any], reader: type[BaseReaderWriter]
) -> None:
    """Write a label map in the data set's format; it replaces an older one when it was read back and is the same.

    Args:
        labels: (slices, height, width) on the raw grid.
        file: to write.
        case: that it labels.
        properties: of the case, as nnU-Net's preprocessing recorded them.
        reader: of the data set, which writes too.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; an older file stays.
    """
    with file_errors_explained():
        file.parent.mkdir(parents=True, exist_ok=True)
    with file_errors_explained(file):
        try:
            # a writer may make more than one file (the TIFF writer puts the spacing beside the image)
            with TemporaryDirectory(dir=file.parent, prefix=".") as folder:
                written = Path(folder, file.name)
                reader().write_seg(labels, str(written), dict(properties))
                _require_same(written, file, labels, case, properties, reader)
                for part in sorted(Path(folder).iterdir(), key=lambda part: part == written):
                    os.replace(part, file.parent / part.name)  # the label map itself comes last
        except (OSError, RuntimeError) as error:
            if (full := no_space(error, file.parent)) is None:
                raise
            # the page still has what was drawn, so no command has to be run again
            raise UserError(f"{file}: {full.partition(';')[0]}; free some space and save again") from None


def _require_same(
    written: Path,
    file: Path,
    labels: np.ndarray,
    case: RawCase,
    properties: Mapping[str, Any],
    reader: type[BaseReaderWriter],
) -> None:
    back, found = read_label(reader, written, case)
    require_same_grid(file, (back.shape[1:], found), (labels.shape, properties), case.identifier)
    if not np.array_equal(back[0], labels):
        raise RuntimeError(f"{file}: what was written differs from what was drawn")
