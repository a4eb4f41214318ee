"""Names of the files in a pseudo-label store; nothing here needs nnU-Net, which takes seconds to import.

A case has a record ``<case>.json``, a label map ``<case>.b2nd`` and class locations ``<case>.pkl``. The record of a
case whose name would make it the manifest (``manifest``, in any mixture of small and capital letters) is called
``<case>.record.json``, that of a case called ``manifest.record`` then ``manifest.record.record.json``, and so on.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_sfr.data.b2nd_files import B2ND
from nnunet_sfr.paths import MANIFEST

_RECORD = ".json"
_RESERVED = re.compile(r"manifest(\.record)*", re.IGNORECASE)
_ESCAPE = ".record"


def record_file(folder: Path, case: str) -> Path:
    """Confidence record of a case.

    Args:
        folder: of the store.
        case: identifier.
    """
    return folder / f"{case}{_ESCAPE if _RESERVED.fullmatch(case) else ''}{_RECORD}"


def labels_file(folder: Path, case: str) -> Path:
    """Label map of a case.

    Args:
        folder: of the store.
        case: identifier.
    """
    return folder / f"{case}{B2ND}"


def locations_file(folder: Path, case: str) -> Path:
    """Class locations of a case.

    Args:
        folder: of the store.
        case: identifier.
    """
    return folder / f"{case}.pkl"


def case_files(folder: Path, case: str) -> tuple[Path, Path, Path]:
    """Every file of a case; the record first, without which the case is not there.

    Args:
        folder: of the store.
        case: identifier.
    """
    return record_file(folder, case), labels_file(folder, case), locations_file(folder, case)


def cases_with_record(folder: Path) -> list[str]:
    """Identifiers of the cases that have a record."""
    names = (file.name for file in folder.glob(f"*{_RECORD}") if not file.name.startswith("."))
    cases = (_case_of(name) for name in names if name.lower() != MANIFEST)
    return sorted(cases)


def _case_of(record: str) -> str:
    stem = record.removesuffix(_RECORD)
    return stem.removesuffix(_ESCAPE) if _RESERVED.fullmatch(stem) else stem
