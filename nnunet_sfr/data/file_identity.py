"""What makes a raw file the same file as before: its name and content, wherever and whenever it was copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr.hashing import FileHashes
from nnunet_sfr.paths import DatasetPaths

FileStamp = list[str | int]


def raw_file_hashes(dataset_name: str) -> FileHashes:
    """Hashes of the raw files of a data set, which are kept beside its fingerprint."""
    paths = DatasetPaths(dataset_name)
    return FileHashes(paths.raw_hashes, base=paths.raw)


def identify(files: Iterable[Path], hashes: FileHashes) -> list[FileStamp]:
    """Name, size in bytes and SHA-256 of every file.

    Args:
        files: that exist.
        hashes: computes and keeps SHA-256.
    """
    return [[file.name, file.stat().st_size, hashes.of(file)] for file in files]


def file_stamps(files: Iterable[Path]) -> list[FileStamp]:
    """Name, size in bytes and time of the last change in ns of every file: what earlier versions identified it by."""
    statuses = [(file.name, file.stat()) for file in files]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in statuses]


def are_recorded(record: Sequence[Any], files: Sequence[Path], hashes: FileHashes) -> bool:
    """Whether files are those of a record, which :func:`identify` or an earlier version's :func:`file_stamps` made.

    Args:
        record: as it was stored.
        files: that exist, in the order of the record.
        hashes: computes and keeps SHA-256.
    """
    return list(record) == file_stamps(files) or list(record) == identify(files, hashes)
