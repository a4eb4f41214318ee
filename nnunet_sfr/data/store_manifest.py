"""The manifest of a pseudo-label store: what filled it, and the grid that its labels fit.

Importing this does not import NumPy, which sfr_run does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.data.provenance import PROVENANCE_SHAPE, Provenance
from nnunet_sfr.json_files import OBJECT, Shape, read_json
from nnunet_sfr.paths import MANIFEST

MADE_BY = "made_by"
"""What made the labels: in the manifest as JSON, in the record of a case as :attr:`Provenance.fingerprint`."""

REMEDY = "run the sfr_pseudolabel that fills this store again, with --overwrite"
"""What to do about a damaged file of a store."""

_SHAPE: Shape = {"grid": OBJECT, MADE_BY: PROVENANCE_SHAPE, "format?": int, "nnunet_sfr_version?": str}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the store in a folder; None where there is no store.

    Args:
        folder: of the store.

    Raises:
        UserError: it is damaged.
    """
    file = folder / MANIFEST
    return read_json(file, REMEDY, _SHAPE) if file.is_file() else None


def maker_in(manifest: Mapping[str, Any]) -> Provenance:
    """What made the labels of a store.

    Args:
        manifest: of the store.
    """
    return Provenance.from_json(manifest[MADE_BY])
