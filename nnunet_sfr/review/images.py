"""The image of a case, as a file that the viewer opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.errors import UserError
from nnunet_sfr.review.viewer_grid import ViewerGrid, nifti_file

WINDOW = (0.5, 99.5)
"""Percentiles between which an image is shown at first."""
_SAMPLES = 200_000
"""Voxels of which the percentiles are taken."""


def image_file(
    case: RawCase,
    channel: int,
    grid: ViewerGrid,
    reader: type[BaseReaderWriter],
    window: tuple[float, float] | None = None,
) -> memoryview:
    """A channel of a raw image as NIfTI in the viewer's axes.

    Args:
        case: raw files of the case.
        channel: from 0.
        grid: of the case.
        reader: of the data set.
        window: lowest and highest value that are told apart at first; None for percentiles of the image.

    Returns:
        The file.

    Raises:
        UserError: the image is missing, cannot be read, or is of another size than when it was preprocessed.
    """
    own_file = len(case.images) > 1  # else one file holds all channels
    file = case.images[channel] if own_file else case.images[0]
    image = _read(file, case, reader)[0 if own_file else channel]
    if image.shape != grid.raw_shape:
        raise UserError(
            f"{file}: {image.shape} voxels, but {grid.raw_shape} when case {case.identifier} was preprocessed; run "
            "sfr_plan_and_preprocess again"
        )
    return nifti_file(grid.to_viewer(_compact(image)), grid.spacing, window or first_window(image))


def _read(file: Path, case: RawCase, reader: type[BaseReaderWriter]) -> np.ndarray:
    try:
        if reader is SimpleITKIO:
            return _read_as_stored(file)
        channels: np.ndarray = reader().read_images([str(file)])[0]
    except (OSError, RuntimeError, ValueError) as error:
        if not file.is_file():
            raise UserError(
                f"{file}: the image of case {case.identifier} is not there; put it back, or start sfr_review again if "
                "sfr_add_labels has taken the case"
            ) from None
        raise UserError(f"{file}: cannot be read ({error}); replace the file") from None
    return channels


def _read_as_stored(file: Path) -> np.ndarray:
    """What nnU-Net's SimpleITKIO reads, in the file's own type, not in float32: a CT in half the time and memory."""
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    with_channels: np.ndarray = image[(np.newaxis,) * max(0, 4 - image.ndim)]
    return with_channels


def _compact(image: np.ndarray) -> np.ndarray:
    """The same values in two bytes each, where they are whole numbers that fit; CT ones are. NaN becomes 0."""
    limits, is_float = np.iinfo(np.int16), image.dtype.kind == "f"
    if is_float and np.isnan(image.sum()):
        image = np.nan_to_num(image)
    if limits.min <= image.min() and image.max() <= limits.max:
        whole = image.astype(np.int16, copy=False)
        if not is_float or np.array_equal(whole, image):
            return whole
    return image.astype(np.float32, copy=False)


def first_window(image: np.ndarray) -> tuple[float, float]:
    """The values that are shown black and white at first; they differ, also for a constant image."""
    step = max(1, image.size // _SAMPLES)
    sample = np.ravel(image)[::step]
    low, high = np.percentile(sample[np.isfinite(sample)], WINDOW) if np.isfinite(sample).any() else (0.0, 0.0)
    return float(low), float(high) if high > low else float(low) + 1
