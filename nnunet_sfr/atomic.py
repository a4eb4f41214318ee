"""Files appear whole or not at all: everything is written under a temporary name and then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import NO_SPACE, UserError, explained, file_errors_explained

_NEXT_TO_NOTHING = 2**20
"""Free bytes below which a disk counts as full."""

_WRITING: set[Path] = set()
"""Temporary files that this process is writing."""


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary path beside ``file`` to write to; on success it takes the place of ``file``.

    The temporary name keeps the suffix (some writers choose the format by it) and starts with a dot (nnU-Net's folder
    listings and ours skip it). On any failure the temporary file is removed and an older ``file`` stays; what a process
    that was killed left behind is removed by the next one that writes the same file.

    Raises:
        UserError: the disk is full, or the file cannot be written there.
    """
    temporary = file.with_name(f".{socket.gethostname()}-{os.getpid()}.{file.name}")
    with file_errors_explained():
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent, file.name)
    with file_errors_explained(file):
        # torch, blosc2 and SimpleITK would not say why they cannot write
        temporary.touch()
        temporary.unlink()
    _WRITING.add(temporary.absolute())
    try:
        yield temporary
        with file_errors_explained(file):
            os.replace(temporary, file)
    except BaseException as error:
        full = no_space(error, file.parent)  # asked before the temporary file's space is free again
        _remove(temporary)
        if full is not None:
            raise UserError(f"{file}: {full}") from None
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            raise (explained(error, file) or error) from None
        raise
    finally:
        _WRITING.discard(temporary.absolute())


def require_writable(folder: Path) -> None:
    """Refuse a folder that could not be made or written to, before hours of work; nothing of it is made.

    Raises:
        UserError: saying why not.
    """
    place = folder.absolute()
    with file_errors_explained(folder):
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        probe = place / f".{socket.gethostname()}-{os.getpid()}.probe"
        probe.touch()
        probe.unlink()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of :func:`replacing` whose processes were killed.

    Only those of this machine: whether a process of another one still writes to a shared disk cannot be seen from here.

    Args:
        folder: to look into.
        name: of the file that they should have become; None for any.
    """
    for entry in os.listdir(folder):
        if is_left_over(folder / entry, name):
            _remove(folder / entry)


def is_left_over(path: Path, name: str | None = None) -> bool:
    """Whether a path is a temporary file of :func:`replacing` that no process of this machine is writing.

    Args:
        path: of a file or folder.
        name: of the file that it should have become; None for any.
    """
    if os.name == "nt":
        return False  # os.kill(..., 0) is no question there
    pattern = rf"\.{re.escape(socket.gethostname())}-(\d+)\.{'.+' if name is None else re.escape(name)}"
    match = re.fullmatch(pattern, path.name)
    if match is None:
        return False
    if int(match[1]) == os.getpid():
        # in containers every call can be process 1
        return path.absolute() not in _WRITING
    return not process_exists(int(match[1]))


def process_exists(process: int) -> bool:
    """Whether this machine has a process of this number, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def no_space(error: BaseException, folder: Path | None = None) -> str | None:
    """What to tell the user where an error, or one that it was raised from, comes from a full disk or a used-up quota.

    torch and blosc2 raise errors that do not say why a write failed; with ``folder`` (which need not exist yet), such
    an error counts if next to nothing is free there.

    Args:
        error: that was raised while writing.
        folder: that was written to.

    Returns:
        What is wrong and what to do; None if the error has another cause.
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError) and current.errno in NO_SPACE:
            return NO_SPACE[current.errno]
        if "No space left on device" in str(current):
            return NO_SPACE[errno.ENOSPC]
        current = current.__cause__ or current.__context__
    if folder is not None and isinstance(error, (OSError, RuntimeError)) and free_bytes(folder) < _NEXT_TO_NOTHING:
        return NO_SPACE[errno.ENOSPC]
    return None


def write_json(content: Any, file: Path) -> None:
    """Write JSON that people can read, atomically.

    Args:
        content: what :mod:`json` can write.
        file: replaced if it is there; its folder has to be.
    """
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def nearest_existing(path: Path) -> Path:
    """The path, or the first folder above it that exists.

    Args:
        path: of a file or folder that may have to be made.
    """
    return next(place for place in (path, *path.parents) if place.exists())


def free_bytes(folder: Path) -> int:
    """What is free on the disk where a folder is or will be.

    Args:
        folder: need not exist.
    """
    return shutil.disk_usage(nearest_existing(folder)).free


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
