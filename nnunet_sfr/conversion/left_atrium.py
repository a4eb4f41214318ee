"""The left atrium (LA) of the Atrial Segmentation Challenge 2018, the benchmark of semi-supervised segmentation.

It is passed around as ``CASE/mri_norm2.h5`` for 100 cases: ``image`` (float32, normalised) and ``label`` (uint8, 0 or
1), cropped around the heart, axes (x, y, z), voxels of 0.625 mm. ``lists/LA.json`` holds the standard lists, 80 cases
to train on and 20 to test on; with N labelled cases, these are the first N of the training list:
https://github.com/yulequan/UA-MT/tree/88ed29ad794f877122e542a7fa9505a76fa83515/data

Voxels stay as they are. To work on a coarser grid let nnU-Net resample (``sfr_plan_and_preprocess
-overwrite_target_spacing``): predictions then come back on the original grid, where they are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.lists import read_lists, split_by_lists
from nnunet_sfr.conversion.nifti import require_values
from nnunet_sfr.conversion.nifti_dataset import problem_of
from nnunet_sfr.conversion.source_dataset import (
    ENDING,
    CaseCheck,
    ConversionRequest,
    DatasetDescription,
    SourceDataset,
    Split,
)
from nnunet_sfr.conversion.volume_folder import LAYOUT, VOLUME_SPLITS, VolumeFolder, open_volume_folder
from nnunet_sfr.errors import UserError

Array = NDArray[np.number[Any]]

DESCRIPTION = DatasetDescription(channels=("MRI",), labels={"background": 0, "left_atrium": 1})
SOURCE_LABELS = {0: "background", 1: "left_atrium"}
SPACING = 0.625
"""Of the ``.h5`` files, which do not say it: mm, on every axis."""


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open the ``.h5`` files, or a folder as :mod:`nnunet_sfr.conversion.volume_folder` describes.

    ``dataset.json`` says nothing of the origin: it is, byte for byte, that of version 0.1.

    Raises:
        UserError: ``source`` is neither layout, a file in it is missing or damaged, or the number cannot be chosen.
    """
    source = request.source
    record: dict[str, Any] = {"dataset": "LA", "source": str(source.resolve())}
    if (source / VOLUME_SPLITS).is_file() or (source / "images").is_dir():
        volumes = _open_volumes(request)
        return replace(volumes, record={**record, "layout": "images, labels and splits", "missing": []})
    originals, missing = _open_originals(request)
    return replace(originals, record={**record, "layout": "h5", "missing": list(missing)})


@dataclass(frozen=True)
class LeftAtriumDataset:
    """The ``.h5`` files: a :class:`nnunet_sfr.conversion.source_dataset.SourceDataset`."""

    files: Mapping[str, Path]
    split: Split
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset_json(self) -> dict[str, Any]:
        return DESCRIPTION.as_json()

    @property
    def origin(self) -> None:
        """Nothing, as in version 0.1."""

    def has_label(self, case: str) -> bool:
        return case in self.files  # beside its image

    def check(self, case: str) -> CaseCheck:
        return LeftAtriumCheck(case, self.files[case])

    def write_images(self, case: str, folder: Path) -> None:
        _write_nifti(_read(self.files[case], "image").astype(np.float32), folder / f"{case}_0000{ENDING}")

    def write_label(self, case: str, folder: Path) -> None:
        _write_nifti(_read(self.files[case], "label"), folder / f"{case}{ENDING}")


@dataclass(frozen=True)
class LeftAtriumCheck:
    """One ``.h5`` file: a :class:`nnunet_sfr.conversion.source_dataset.CaseCheck`."""

    case: str
    file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    def problem(self) -> str | None:
        return problem_of(self._checks())

    def _checks(self) -> Iterable[Callable[[], object]]:
        yield lambda: _check_arrays(self.file)
        yield lambda: _require_finite(self.file, _read(self.file, "image"))
        yield lambda: require_values(self.file, _read(self.file, "label"), self.case, SOURCE_LABELS)


def _open_originals(request: ConversionRequest) -> tuple[LeftAtriumDataset, tuple[str, ...]]:
    """The files that are there and the cases that are not."""
    lists = read_lists("LA")
    files = {case: file for case in lists.all if (file := _find(request.source, case)) is not None}
    if not files:
        raise UserError(
            f"{request.source}: has neither {LAYOUT}, nor a CASE/mri_norm2.h5 or CASE.h5 for any of the "
            f"{len(lists.all)} cases of the standard lists (such as {lists.training[0]}); check SOURCE"
        )
    split, missing = split_by_lists(lists, files, request)
    return LeftAtriumDataset(files, split), missing


def _open_volumes(request: ConversionRequest) -> VolumeFolder:
    volumes = open_volume_folder(request.source, DESCRIPTION, labelled=request.labelled, seed=request.seed)
    for case in volumes.split.test:
        if not volumes.has_label(case):
            raise UserError(f"{volumes.label(case)}: not found; without it the test case {case} cannot be scored")
    return volumes


def _find(source: Path, case: str) -> Path | None:
    files = [file for file in (source / case / "mri_norm2.h5", source / f"{case}.h5") if file.is_file()]
    if len(files) > 1:
        raise UserError(f"{files[1]}: {case} lies there twice, see {files[0]}; remove one of the two")
    return files[0] if files else None


def _check_arrays(file: Path) -> None:
    """Headers only: what :func:`_read` will find."""
    with _opened(file) as content:
        for name, kinds, expected in (("image", "fiu", "numbers"), ("label", "iu", "whole numbers")):
            found = content.get(name)
            if not isinstance(found, h5py.Dataset) or found.ndim != 3 or found.dtype.kind not in kinds:
                raise UserError(f"{file}: has no 3D array '{name}' of {expected}; replace it")
        image, label = content["image"].shape, content["label"].shape
        if image != label:
            raise UserError(f"{file}: has an image of {image} and a label of {label} voxels; replace it")


def _require_finite(file: Path, image: Array) -> None:
    if not np.all(np.isfinite(image)):
        raise UserError(f"{file}: its image has NaN or infinite voxels; replace it")


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
