"""One ``sfr_review`` at a time on a data set."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from nnunet_sfr.locking import Holder, held


def only_review(folder: Path, command: str) -> AbstractContextManager[None]:
    """Hold the lock of a review's folder, which is made where it is missing, and removed if nothing was saved there.

    Args:
        folder: of the review.
        command: as the user typed it, for others to read.

    Raises:
        UserError: in the context, if another one is open, or the folder cannot be written to.
    """

    def refusal(holder: Holder | None) -> str:
        return (
            f"{folder}: another sfr_review is open on this data set ({holder or 'just started'}); use its page, or end "
            "it with Ctrl-C"
        )

    return held(folder / ".lock", folder / ".lock.json", command, refusal)
