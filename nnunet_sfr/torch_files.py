"""Files in torch's format: written with bytes that depend on their content alone, and read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nnunet_sfr.errors import UserError


def save(content: Any, file: Path) -> None:
    """``torch.save`` without the file's name, which torch keeps in a file that it opens itself.

    Our files are written under temporary names, and their hashes tell whether they are still the same.

    Args:
        content: what torch can save.
        file: to write.
    """
    with file.open("wb") as stream:
        torch.save(content, stream)


def read_state(file: Path, remedy: str, *, on_disk: bool = False) -> dict[str, Any]:
    """What :func:`save` wrote, with its tensors on the CPU.

    Args:
        file: to read.
        remedy: what to do about a damaged file; ends the message.
        on_disk: leaves tensors in the file, where only the rest is looked at.

    Raises:
        UserError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=on_disk)
    except Exception as error:
        raise UserError(f"{file}: cannot be read ({error}); {remedy}") from None
    return state
