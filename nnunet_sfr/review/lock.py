"""One ``sfr_review`` at a time on a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import Timeout

from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.locking import Holder, file_lock, this_process


@contextlib.contextmanager
def only_review(folder: Path, command: str) -> Iterator[None]:
    """Hold the lock of a review's folder, which is made where it is missing.

    Args:
        folder: of the review.
        command: as the user typed it, for others to read.

    Raises:
        UserError: another one is open, or the folder cannot be written to.
    """
    holder = folder / ".lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(folder / ".lock")
        lock.acquire(timeout=0)
        write_json(asdict(this_process(command)), holder)
    except Timeout:
        who = Holder.read(holder)
        raise UserError(
            f"{folder}: another sfr_review is open on this data set ({who or 'just started'}); use its page, or end it "
            "with Ctrl-C"
        ) from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error}); ask its owner for the permission") from None
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
