"""JSON files of nnU-Net and of ours, read with one line for a user's mistake; torch is not needed for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or not JSON; the message ends with ``remedy``.
    """
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: not found; {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a JSON object; {remedy}")
    return content
