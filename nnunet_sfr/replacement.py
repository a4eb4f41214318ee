"""A result takes the place of an older one only when it is complete.

A folder that is to be replaced stays where it is while the new one is made in ``<parent>/.new/<name>``; then both
change places by renaming. What a run of several commands cannot leave in its place lies in
``<parent>/.earlier/<name>``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

_NEW, _OLD, _EARLIER = ".new", ".old", ".earlier"


def new_folder(folder: Path) -> Path:
    """Where what will replace a folder is made."""
    return folder.parent / _NEW / folder.name


def replace_folder(folder: Path) -> None:
    """Put the complete :func:`new_folder` in the place of a folder.

    Killed in between, :func:`finish_replacement` does the rest.
    """
    old = folder.parent / _OLD / folder.name
    _remove(old)
    if folder.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, old)
    os.rename(new_folder(folder), folder)
    _remove(old)
    _remove_if_empty(new_folder(folder).parent)


def finish_replacement(folder: Path) -> None:
    """Do what a killed :func:`replace_folder` did not come to; to be called before a folder is looked at."""
    old = folder.parent / _OLD / folder.name
    if old.exists() and not folder.exists() and new_folder(folder).exists():
        replace_folder(folder)


def set_aside(result: Path, parts: Sequence[Path] | None = None) -> None:
    """Move a result, file or folder, out of the way of a new attempt at it.

    What has been set aside before stays there: it is a complete result, and what has come since was given up.

    Args:
        result: to move to :func:`kept_aside`.
        parts: what is to be moved there of a folder that stays; None for all of it.
    """
    kept = kept_aside(result)
    there = [part for part in ([result] if parts is None else parts) if part.exists()]
    if kept.exists():
        for part in there:
            _remove(part)
        return
    partial = kept.with_name(f"{kept.name}.partial")
    if not there and not partial.exists():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    if parts is None:
        os.rename(result, kept)
        return
    partial.mkdir(exist_ok=True)
    for part in there:
        os.rename(part, partial / part.name)
    os.rename(partial, kept)


def kept_aside(result: Path) -> Path:
    """Where :func:`set_aside` puts a result."""
    return earlier_folder(result.parent) / result.name


def earlier_folder(parent: Path) -> Path:
    """Where lies what :func:`set_aside` has put aside of a folder's entries."""
    return parent / _EARLIER


def remove_kept_aside(result: Path) -> None:
    """Remove what :func:`set_aside` has put aside: there is a new complete result."""
    _remove(kept_aside(result))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    _remove_if_empty(path.parent)


def _remove_if_empty(folder: Path) -> None:
    if folder.name in (_NEW, _OLD, _EARLIER):
        with contextlib.suppress(OSError):
            folder.rmdir()
