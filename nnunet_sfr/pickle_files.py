"""Pickles that nnU-Net's preprocessing and our stores write, read with one line for a file that is damaged."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError, file_errors_explained


def read_pickle(file: Path, remedy: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read a dictionary.

    Args:
        file: of this machine's own making: a pickle can run anything.
        remedy: what to do about a file that does not pass; ends the message.
        keys: that the dictionary must have.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    try:
        with file_errors_explained(file):
            content = pickle.loads(file.read_bytes())
    except UserError as error:
        reason = "not found" if isinstance(error.__cause__, FileNotFoundError) else str(error).partition(": ")[2]
        raise UserError(f"{file}: {reason}; {remedy}") from None
    except Exception as error:  # the unpickler fails on damaged files in any way
        raise UserError(f"{file}: is damaged ({type(error).__name__}: {error}); {remedy}") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if not isinstance(content, dict) or missing:
        what = f"has no {missing[0]}" if isinstance(content, dict) else "holds no dictionary"
        raise UserError(f"{file}: {what}; {remedy}")
    return content
