"""The files of a preprocessed case, as nnU-Net's loaders read them, and what to say of those that are damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.data.b2nd_files import B2ND, open_b2nd
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import json_hash
from nnunet_sfr.pickle_files import read_pickle

PROPERTIES_ENDING, SEGMENTATION_ENDING, DATA_ENDING = ".pkl", f"_seg{B2ND}", B2ND
CASE_ENDINGS = (PROPERTIES_ENDING, SEGMENTATION_ENDING, DATA_ENDING)
"""Of the files of a case, in the order in which they are put in place: nnU-Net lists those that have the last one."""
ARRAY_ENDINGS = (DATA_ENDING, SEGMENTATION_ENDING)

_REMEDY = "run sfr_plan_and_preprocess again"

PROPERTIES = ("spacing", "shape_before_cropping")
"""Some of what nnU-Net's preprocessing records of every case."""
PROVENANCE = "nnunet_sfr"
"""Our entry beside them: what the case was made from."""


def list_preprocessed(folder: Path) -> list[str]:
    """The cases of a folder, sorted, as nnU-Net lists them, whose own function takes seconds to import.

    Args:
        folder: of preprocessed cases; it need not exist.
    """
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(DATA_ENDING) for name in names if is_data_file(name))


def is_data_file(name: str) -> bool:
    """Whether a file name is that of the data of a case, by which nnU-Net lists it."""
    return name.endswith(DATA_ENDING) and not name.endswith(SEGMENTATION_ENDING)


def unlabelled_identifiers(folder: Path) -> list[str]:
    """The preprocessed unlabelled cases, sorted.

    Args:
        folder: :attr:`nnunet_sfr.paths.SFRPaths.unlabelled`.

    Raises:
        UserError: the folder is missing or empty.
    """
    identifiers = list_preprocessed(folder)
    if not identifiers:
        raise UserError(f"{folder}: no preprocessed unlabelled cases; run sfr_plan_and_preprocess first")
    return identifiers


def read_properties(folder: Path, identifier: str) -> dict[str, Any]:
    """What nnU-Net's preprocessing recorded of a case, without opening its arrays.

    Args:
        folder: of preprocessed cases.
        identifier: of the case.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_pickle(folder / f"{identifier}{PROPERTIES_ENDING}", _REMEDY, PROPERTIES)


def image_hash(properties: Mapping[str, Any]) -> str:
    """Identifies a preprocessed image by what preprocessing recorded of its files and settings."""
    return json_hash(properties.get(PROVENANCE), default=str)


def image_hashes(folder: Path, identifiers: Iterable[str]) -> dict[str, str]:
    """The :func:`image_hash` of every case.

    Args:
        folder: of preprocessed cases.
        identifiers: of the cases.

    Raises:
        UserError: the properties of a case are missing or damaged.
    """
    return {case: image_hash(read_properties(folder, case)) for case in identifiers}


def require_files(folder: Path, identifiers: Iterable[str]) -> None:
    """Check that every case has its files and none of them is empty, which costs no reading.

    Args:
        folder: of preprocessed cases.
        identifiers: of the cases.

    Raises:
        UserError: naming the first file that is missing or empty.
    """
    for identifier in identifiers:
        for ending in (PROPERTIES_ENDING, *ARRAY_ENDINGS):
            file = folder / f"{identifier}{ending}"
            if not file.is_file() or file.stat().st_size == 0:
                raise UserError(f"{file}: is {'empty' if file.is_file() else 'missing'}; {_REMEDY}")


@contextlib.contextmanager
def damage_explained(folder: Path, identifier: str) -> Iterator[None]:
    """Raise what fails for a damaged file of a case as one line that names it.

    Args:
        folder: of preprocessed cases.
        identifier: of the case that is read.

    Raises:
        UserError: one of its files is damaged; anything else is raised as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        read_properties(folder, identifier)
        for ending in ARRAY_ENDINGS:
            open_b2nd(folder / f"{identifier}{ending}")
        raise


@contextlib.contextmanager
def damaged_voxels_named(*folders: Path) -> Iterator[None]:
    """Raise what fails for voxels that cannot be read as one line that names their file.

    Opening a file reads none of its voxels, so that :func:`damage_explained` passes over them. All files are read to
    find the one, once something has failed.

    Args:
        folders: of preprocessed cases.

    Raises:
        UserError: a file has such voxels; anything else is raised as it is.
    """
    try:
        yield
    except RuntimeError as failure:  # of blosc2, or of nnU-Net's loader that its worker processes are gone
        if type(failure).__name__ == "OutOfMemoryError":  # torch's, which this module does not import
            raise
        for file in (file for folder in folders for file in sorted(folder.glob(f"*{B2ND}"))):
            try:
                open_b2nd(file)[:]
            except UserError:  # cannot be opened, which is said where it is opened
                continue
            except RuntimeError as error:
                raise UserError(
                    f"{file}: damaged ({error}); delete it and run sfr_plan_and_preprocess again"
                ) from failure
        raise
