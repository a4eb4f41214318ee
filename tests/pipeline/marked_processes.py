"""Processes that a test started, found by a mark in their environment, whatever has become of their parents."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.patience import wait_until

MARK = "NNUNET_SFR_TEST"


def living(mark: str) -> list[int]:
    """Ids of the processes that have the mark; those that have ended and wait for their parent do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def wait_until_gone(mark: str) -> None:
    """Wait for all of them to end."""
    wait_until(lambda: not living(mark), f"the processes marked {mark} have ended")


def wait_for(number: int, mark: str) -> None:
    """Wait until so many of them live: one that is just being started has no environment to read for a moment."""
    wait_until(lambda: len(living(mark)) >= number, f"{number} processes marked {mark} live")


@contextlib.contextmanager
def none_survives(mark: str) -> Iterator[None]:
    """Kill what is left of a test's processes."""
    try:
        yield
    finally:
        for pid in living(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
