"""The left atrium (LA) of the Atrial Segmentation Challenge 2018, the benchmark of semi-supervised segmentation.

It is passed around as ``CASE/mri_norm2.h5`` for 100 cases: ``image`` (float32, normalised) and ``label`` (uint8, 0 or
1), cropped around the heart, axes (x, y, z), voxels of 0.625 mm. ``left_atrium.json`` holds the standard lists, 80
cases to train on and 20 to test on; with N labelled cases, these are the first N of the training list:
https://github.com/yulequan/UA-MT/tree/88ed29ad794f877122e542a7fa9505a76fa83515/data

Voxels stay as they are. To work on a coarser grid let nnU-Net resample (``sfr_plan_and_preprocess
-overwrite_target_spacing``): predictions then come back on the original grid, where they are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.raw_dataset import Content, Source, Split, convert_source
from nnunet_sfr.conversion.volume_folder import LAYOUT, SPLITS, Volumes, open_volumes
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json

Array = NDArray[np.number[Any]]

CONTENT = Content(channel="MRI", labels={"background": 0, "left_atrium": 1})
SPACING = 0.625
"""Of the ``.h5`` files, which do not say it: mm, on every axis."""

LISTS = Path(__file__).with_suffix(".json")
_NAMES_IN_MESSAGES = 10


def convert(
    source: Path,
    dataset: Path,
    *,
    labelled: int,
    allow_missing: bool = False,
    overwrite: bool = False,
    bar: bool = True,
) -> Split:
    """Build the raw data set, or nothing.

    Args:
        source: the folder with the ``.h5`` files, or one as :mod:`nnunet_sfr.conversion.volume_folder` describes.
        dataset: the folder to make, ``nnUNet_raw/DatasetNNN_LA``.
        labelled: number of labelled cases, N.
        allow_missing: convert the ``.h5`` files that are there, if the labelled cases are among them.
        overwrite: replace ``dataset``, if a conversion wrote it.
        bar: show a progress bar.

    Returns:
        Who is what.

    Raises:
        UserError: ``source`` is neither layout, a file in it is missing or damaged, the number cannot be chosen, or
            ``dataset`` exists.
    """
    volumes: Source
    missing: list[str] = []
    if (source / SPLITS).is_file() or (source / "images").is_dir():
        volumes, layout = _open_volumes(source, labelled), "images, labels and splits"
    else:
        volumes, missing = _open_originals(source, labelled, allow_missing=allow_missing)
        layout = "h5"
    record = {"dataset": "LA", "source": str(source.resolve()), "layout": layout, "missing": missing}
    convert_source(volumes, CONTENT, dataset, record=record, overwrite=overwrite, bar=bar)
    return volumes.split


@dataclass(frozen=True)
class Originals:
    """Checked ``.h5`` files: a :class:`nnunet_sfr.conversion.raw_dataset.Source`."""

    files: Mapping[str, Path]
    split: Split

    def has_label(self, case: str) -> bool:
        return case in self.files  # beside its image

    def write_image(self, case: str, file: Path) -> None:
        _write_nifti(_read(self.files[case], "image").astype(np.float32), file)

    def write_label(self, case: str, file: Path) -> None:
        _write_nifti(_read(self.files[case], "label"), file)


def _open_originals(source: Path, labelled: int, *, allow_missing: bool) -> tuple[Originals, list[str]]:
    """The files that are there and the cases that are not."""
    lists = read_json(LISTS, "install the package again")
    training, test = lists["train"], lists["test"]
    if not 1 <= labelled < len(training):
        raise UserError(f"--labelled must be from 1 to {len(training) - 1} with the standard lists, got {labelled}")
    files = {case: file for case in (*training, *test) if (file := _find(source, case)) is not None}
    if not files:
        raise UserError(
            f"{source}: has neither {LAYOUT}, nor a CASE/mri_norm2.h5 or CASE.h5 for any of the {len(training + test)} "
            f"cases of the standard lists (such as {training[0]}); check SOURCE"
        )
    missing = [case for case in (*training, *test) if case not in files]
    if missing and not allow_missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(training + test)} cases are missing: {_some(missing)}; "
            "get them, or add --allow-missing to convert the others"
        )
    _require_labelled(source, training[:labelled], files)
    for file in files.values():
        _check(file)
    unlabelled = tuple(case for case in training[labelled:] if case in files)
    if not unlabelled:
        raise UserError(f"{source}: leaves no unlabelled case with --labelled {labelled}; choose fewer")
    split = Split(tuple(training[:labelled]), unlabelled, tuple(case for case in test if case in files))
    return Originals(files, split), missing


def _open_volumes(source: Path, labelled: int) -> Volumes:
    volumes = open_volumes(source, labelled=labelled)
    for case in volumes.split.test:
        if not volumes.has_label(case):
            raise UserError(f"{volumes.label(case)}: not found; without it the test case {case} cannot be scored")
    return volumes


def _find(source: Path, case: str) -> Path | None:
    return next((file for file in (source / case / "mri_norm2.h5", source / f"{case}.h5") if file.is_file()), None)


def _require_labelled(source: Path, labelled: Sequence[str], files: Mapping[str, Path]) -> None:
    """Another case in the place of a missing one would be another benchmark."""
    missing = [case for case in labelled if case not in files]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of the {len(labelled)} cases to label are missing: {_some(missing)}; "
            "get them or choose a smaller --labelled"
        )


def _some(cases: Sequence[str]) -> str:
    rest = len(cases) - _NAMES_IN_MESSAGES
    return ", ".join(cases[:_NAMES_IN_MESSAGES]) + (f" and {rest} more" if rest > 0 else "")


def _check(file: Path) -> None:
    """Headers only: what :func:`_read` will find."""
    with _opened(file) as content:
        for name, kinds, expected in (("image", "fiu", "numbers"), ("label", "iu", "whole numbers")):
            found = content.get(name)
            if not isinstance(found, h5py.Dataset) or found.ndim != 3 or found.dtype.kind not in kinds:
                raise UserError(f"{file}: has no 3D array '{name}' of {expected}; replace it")
        image, label = content["image"].shape, content["label"].shape
        if image != label:
            raise UserError(f"{file}: has an image of {image} and a label of {label} voxels; replace it")


def _read(file: Path, name: str) -> Array:
    """(x, y, z)."""
    with _opened(file) as content:
        array: Array = content[name][()]
    return array


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(file, "r") as content:
            yield content
    except OSError as error:
        raise UserError(f"{file}: cannot be read as HDF5 ({error}); replace it") from None


def _write_nifti(array: Array, file: Path) -> None:
    """Write (x, y, z) with nnU-Net's axes and the voxel size of the data set."""
    image = sitk.GetImageFromArray(array.transpose())  # SimpleITK's arrays are (z, y, x)
    image.SetSpacing((SPACING,) * 3)
    sitk.WriteImage(image, str(file), True)
