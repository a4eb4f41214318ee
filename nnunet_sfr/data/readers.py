"""nnU-Net's choice of reader for a data set."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunet_sfr.errors import UserError


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
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            reader: type[BaseReaderWriter] = determine_reader_writer_from_dataset_json(
                dict(dataset_json), str(example), verbose=False
            )
    except RuntimeError:
        raise UserError(
            f"{example}: no reader of nnU-Net can open {what}; replace the file, or mend file_ending in dataset.json"
        ) from None
    return reader
