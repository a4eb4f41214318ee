"""nnU-Net's choice of reader for a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import (
    LIST_OF_IO_CLASSES,
    determine_reader_writer_from_dataset_json,
    recursive_find_reader_writer_by_name,
)

from nnunet_sfr.errors import UserError
from nnunet_sfr.silence import without_printing

_OWN_CHOICE = "overwrite_image_reader_writer"
"""The key of ``dataset.json`` that names a reader; nnU-Net passes over a name that it does not know."""


def require_known_reader(dataset_json: Mapping[str, Any], file: Path) -> None:
    """Check the reader that ``dataset.json`` names.

    Args:
        dataset_json: its content.
        file: that it was read from, for the message.

    Raises:
        UserError: nnU-Net has none of this name, or none is named and nnU-Net has none for the file ending.
    """
    names = ", ".join(reader.__name__ for reader in LIST_OF_IO_CLASSES)
    name = dataset_json.get(_OWN_CHOICE, "None")
    if name != "None":
        if not isinstance(name, str) or not _is_reader(name):
            raise UserError(
                f"{file}: {_OWN_CHOICE} is {name!r}, no reader of nnU-Net; use one of {names}, or remove it"
            )
        return
    endings = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}
    if str(dataset_json.get("file_ending")).lower() not in endings:
        raise UserError(
            f"{file}: file_ending is {dataset_json.get('file_ending')}, which nnU-Net does not read; convert the files "
            f"to one of {', '.join(sorted(endings))}, or name a reader that does with {_OWN_CHOICE}"
        )


def _is_reader(name: str) -> bool:
    try:
        found = recursive_find_reader_writer_by_name(name)
    except RuntimeError:
        return False
    return isinstance(found, type) and issubclass(found, BaseReaderWriter)


def find_reader(dataset_json: Mapping[str, Any], example: Path, what: str = "it") -> type[BaseReaderWriter]:
    """The reader that ``dataset.json`` names, else the first that opens an example.

    Args:
        dataset_json: its content.
        example: a file of the data set.
        what: the example is, for the message.

    Raises:
        UserError: none does.
    """
    try:
        # its failed attempts print tracebacks
        with without_printing(errors=True):
            reader: type[BaseReaderWriter] = determine_reader_writer_from_dataset_json(
                dict(dataset_json), str(example), verbose=False
            )
    except RuntimeError:
        raise UserError(
            f"{example}: no reader of nnU-Net can open {what}; replace the file, or correct file_ending in dataset.json"
        ) from None
    return reader
