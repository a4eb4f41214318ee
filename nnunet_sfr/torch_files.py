"""Files in torch's format whose bytes depend on their content alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(content: Any, file: Path) -> None:
    """``torch.save`` without the file's name, which torch keeps in a file that it opens itself.

    Our files are written under temporary names, and their hashes tell whether they are still the same.

    Args:
        content: what torch can save.
        file: to write.
    """
    with file.open("wb") as stream:
        torch.save(content, stream)
