"""What identifies a file or a network, wherever it lies and whatever it is called."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError

if TYPE_CHECKING:  # sfr_run hashes files, and does not wait for torch
    from torch import nn

_Item = TypeVar("_Item")

_CLOCK_STEP = 2.0
"""Seconds within which two changes of a file can have the same time, on the coarsest of file systems."""

_BAR_DELAY = 5.0
"""Seconds of hashing after which a progress bar appears."""


def file_hash(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def json_hash(content: Any, default: Callable[[Any], Any] | None = None) -> str:
    """SHA-256 of JSON content, in hexadecimal digits; the same for any order of its keys.

    Args:
        content: in JSON's types, and tuples.
        default: makes JSON of anything else, which is an error without it.

    Raises:
        TypeError: something in it is of no such type.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=default).encode()).hexdigest()


def while_hashing(items: Sequence[_Item], unit: str) -> Iterable[_Item]:
    """The items of a loop that hashes them, with a progress bar where it takes long.

    Args:
        items: to hash.
        unit: what one of them is called.
    """
    bar: Iterable[_Item] = tqdm(items, desc="Hashing", unit=unit, delay=_BAR_DELAY, leave=False)
    return bar


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of the parameters and buffers of a network, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class FileHashes:
    """SHA-256 of files; a file whose size and time of change are those of the last time is not read again.

    A copied or moved file has another time of change (or another path): it is read once more, and the hash decides
    whether it is the same.

    Args:
        file: where the hashes are kept between calls.
        base: folder that the paths are kept relative to, so that they still hold when it is moved; None for the paths
            as they are given.
    """

    def __init__(self, file: Path, base: Path | None = None) -> None:
        self._file = file
        self._base = base
        self._known: dict[str, Any] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, TypeError):  # the loss of a cache is none
            self._known = dict(json.loads(file.read_text(encoding="utf-8")))

    def of(self, file: Path) -> str:
        """The hash of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        status = file.stat()
        key = str(file) if self._base is None else os.path.relpath(file, self._base)
        known = self._known.get(key)
        if isinstance(known, list) and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        value = file_hash(file)
        if abs(time.time() - status.st_mtime) > _CLOCK_STEP:
            self._known[key] = [status.st_size, status.st_mtime_ns, value]
            self._changed = True
        return value

    def save(self) -> None:
        """Keep the hashes for the next call, where they can be kept; nothing is done where none is new."""
        if self._changed:
            with contextlib.suppress(OSError, UserError):  # the loss of a cache is none
                write_json(self._known, self._file)
            self._changed = False
