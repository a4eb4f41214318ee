"""The files of a preprocessed case, as nnU-Net's loaders read them, and what to say of those that are damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nnunet_sfr.data.pseudo_label_store import open_b2nd
from nnunet_sfr.errors import UserError
from nnunet_sfr.pickle_files import read_pickle

_PROPERTIES, _ARRAYS = ".pkl", (".b2nd", "_seg.b2nd")
_REMEDY = "run sfr_plan_and_preprocess again"

PROPERTIES = ("spacing", "shape_before_cropping")
"""Some of what nnU-Net's preprocessing records of every case."""


def require_files(folder: Path, identifiers: Iterable[str]) -> None:
    """Check that every case has its files and none of them is empty, which costs no reading.

    Args:
        folder: of preprocessed cases.
        identifiers: of the cases.

    Raises:
        UserError: naming the first file that is missing or empty.
    """
    for identifier in identifiers:
        for ending in (_PROPERTIES, *_ARRAYS):
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
        read_pickle(folder / f"{identifier}{_PROPERTIES}", _REMEDY, PROPERTIES)
        for ending in _ARRAYS:
            open_b2nd(folder / f"{identifier}{ending}")
        raise
