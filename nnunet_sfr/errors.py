"""The one exception for mistakes that a user can correct, and what the operating system refuses in its words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something in the data, the settings or the call is wrong, and the user can put it right.

    The message is a single line that names the file or the case, what is wrong with it and what to do.
    Commands print it and exit with code 1; a traceback is kept for our own mistakes.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class StepError(UserError):
    """A command that one of ours started ended with an error, which is on the screen or in its log.

    Args:
        message: one line.
        exit_code: of the command, which becomes that of ours.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


NO_SPACE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your quota of disk space is used up; free some space and run the same command again",
}
"""What is wrong and what to do, where there is no space left, by the operating system's number of the error."""

_PERMISSION = "may not be accessed (permission denied); ask its owner for the permission, or choose another place"
_REASONS = {
    **NO_SPACE,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "lies on a read-only file system; choose a place that can be written to",
    errno.ENOTDIR: "one of the folders of this path is a file; remove that file, or choose another place",
    errno.EISDIR: "is a folder where a file is wanted; remove it, or choose another name",
    errno.EEXIST: "is a file where a folder is wanted; remove it, or choose another place",
    errno.ENOTEMPTY: "is a folder that is not empty; remove it, or choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.ELOOP: "is a link that leads back to itself; remove it",
    errno.ENOENT: "not found, and cannot be made there; check the path",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or use fewer processes (-np)",
    errno.EIO: "the disk reports an error when it is read or written; check the disk",
    errno.ESTALE: "the network drive has lost it; run the same command again",
}


def explained(error: OSError, file: Path | None = None) -> UserError | None:
    """What the operating system refused, as one line; None if it does not say what it was about.

    Args:
        error: as it was raised.
        file: that was read or written, in the place of the one that the error names.
    """
    name = file or error.filename2 or error.filename
    if error.errno is None or name is None or isinstance(name, int):
        return None
    reason = _REASONS.get(error.errno)
    if reason is None:
        reason = f"{os.strerror(error.errno).lower()}; check the path, and the disk that it is on"
    return UserError(f"{os.fsdecode(name)}: {reason}")


@contextmanager
def file_errors_explained(file: Path | None = None) -> Iterator[None]:
    """Raise what the operating system refuses as a :class:`UserError`.

    Args:
        file: that is read or written, in the place of the one that an error names.
    """
    try:
        yield
    except OSError as error:
        explanation = explained(error, file)
        if explanation is None:
            raise
        raise explanation from error


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with the one line of a :class:`UserError`, where nnU-Net's own commands call our code."""
    try:
        with file_errors_explained():
            yield
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
