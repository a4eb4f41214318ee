"""What tells the content of files and settings apart: hashes, remembered by size and time of change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_sfr.hashing import FileHashes, json_hash, while_hashing

Digests = Mapping[str, str]
"""Digests by the name of what they stand for."""

ANY = "any"
"""In the place of a digest: nothing particular was asked for, so whatever it was is right."""

_DIGITS = 16
"""Hexadecimal digits that are kept."""


@dataclass(frozen=True)
class FileSet:
    """A part of what a step reads or writes: files, known by name and content."""

    files: tuple[Path, ...]

    @classmethod
    def of(cls, *files: Path) -> FileSet:
        return cls(files)

    def missing(self) -> list[Path]:
        return [file for file in self.files if not file.is_file()]


Parts = Mapping[str, Any]
"""Parts of inputs or outputs by name: :class:`FileSet`, or content in JSON's types, or None for :data:`ANY`."""


class HashCache:
    """Digests of parts, by the hashes of their files.

    Args:
        file: where the hashes are kept between calls.
    """

    def __init__(self, file: Path) -> None:
        self._hashes = FileHashes(file)

    def digests(self, parts: Parts) -> Digests:
        """The digest of every part."""
        return {name: self._digest(part) for name, part in parts.items()}

    def _digest(self, part: Any) -> str:
        if part is None:
            return ANY
        if not isinstance(part, FileSet):
            return _short_hash(part)
        return _short_hash([(file.name, self._hash(file)) for file in while_hashing(part.files, "file")])

    def _hash(self, file: Path) -> str | None:
        try:
            return self._hashes.of(file)
        except FileNotFoundError:
            return None

    def save(self) -> None:
        self._hashes.save()


def differing(before: Digests, now: Digests) -> list[str]:
    """The names of what differs; what is not asked for now does not.

    Args:
        before: digests by name.
        now: digests by name.
    """
    names = dict.fromkeys([*now, *before])
    return [name for name in names if now.get(name) != ANY and before.get(name) != now.get(name)]


def merged(before: Digests, now: Digests) -> Digests:
    """What holds now, where nothing is asked for with what held before.

    Args:
        before: digests by name.
        now: digests by name.
    """
    return {name: before.get(name, ANY) if value == ANY else value for name, value in now.items()}


def _short_hash(content: Any) -> str:
    return json_hash(content)[:_DIGITS]
