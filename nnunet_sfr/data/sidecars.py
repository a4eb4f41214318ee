"""Files that belong to an image or a label map, and are read, hashed, moved and copied with it.

* ``<case>.json``: the spacing of a TIFF volume, as nnU-Net's Tiff3DIO reads it; beside other formats, what converters
  from DICOM write there (``<case>_0000.json`` too).
* the voxels of a header without any: MetaImage (``.mhd``), NRRD (``.nhdr``, ``.nrrd``), Analyze and NIfTI pairs
  (``.hdr`` and ``.img``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SPACING_ENDING = ".json"
"""Of the file with the spacing of a TIFF volume."""

_HEADER_BYTES = 2**14
_NAMES_OF_VOXELS = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE),
    ".nrrd": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE),
}
"""Where a header in text names the file with its voxels."""

_PAIRS = {".hdr": (".img", ".img.gz"), ".img": (".hdr",), ".img.gz": (".hdr",)}


def sidecars(files: Iterable[Path], ending: str, *, is_label: bool = False) -> tuple[Path, ...]:
    """The files that belong to the channels of one image, or to one label map, as far as there are any.

    Args:
        files: the image's or the label map's, which need not exist.
        ending: of the data set's files.
        is_label: label maps have no channel in their names.

    Returns:
        Each file once, in the folder of what it belongs to; links to nothing too, which the caller has to name.
    """
    found: dict[Path, None] = {}
    for file in files:
        stem = file.name.removesuffix(ending)
        names = [f"{stem}{SPACING_ENDING}", *_voxels(file, stem, ending)]
        places = [spacing_file(file, ending, is_label=is_label), *map(file.with_name, names)]
        found |= dict.fromkeys(place for place in places if place.is_file() or place.is_symlink())
    return tuple(found)


def renamed_sidecars(file: Path, name: str, ending: str, *, is_label: bool = False) -> dict[Path, str]:
    """The files that belong to a channel of an image or to a label map, and what they are called beside a copy of it.

    Args:
        file: the channel or label map.
        name: of the copy, which the key ``dataset`` of dataset.json may call otherwise than the file.
        ending: of the data set's files.
        is_label: label maps have no channel in their names.

    Returns:
        New names by file. Voxels that a header names keep their name.
    """
    copy = file.with_name(name)
    stem, new_stem = file.name.removesuffix(ending), name.removesuffix(ending)
    renamed = {
        file.with_name(f"{stem}{other}"): f"{new_stem}{other}"
        for other in (SPACING_ENDING, *_PAIRS.get(ending.lower(), ()))
    }
    renamed[spacing_file(file, ending, is_label=is_label)] = spacing_file(copy, ending, is_label=is_label).name
    return {sidecar: renamed.get(sidecar, sidecar.name) for sidecar in sidecars([file], ending, is_label=is_label)}


def spacing_file(file: Path, ending: str, *, is_label: bool) -> Path:
    """Where nnU-Net's Tiff3DIO looks for the spacing of an image or a label map.

    Args:
        file: a channel of the image, or the label map.
        ending: of the data set's files.
        is_label: label maps have no channel in their names.
    """
    stem = file.name.removesuffix(ending)
    # whatever the name: nnU-Net cuts as many characters as a channel has
    return file.with_name(f"{stem if is_label else stem[: -len('_0000')]}{SPACING_ENDING}")


def _voxels(file: Path, stem: str, ending: str) -> list[str]:
    """Names of the files in the same folder that hold the voxels of a header."""
    pattern = _NAMES_OF_VOXELS.get(ending.lower())
    if pattern is None or not file.is_file():
        return [f"{stem}{other}" for other in _PAIRS.get(ending.lower(), ())]
    with file.open("rb") as stream:
        start = stream.read(_HEADER_BYTES).partition(b"\n\n")[0]
    named = pattern.search(start)
    name = "" if named is None else named[1].decode("utf-8", "replace")
    # LOCAL and LIST are words of MetaImage's, and files elsewhere stay where they are
    return [name] if name and "/" not in name and name not in (".", "..", "LOCAL", "LIST") else []
