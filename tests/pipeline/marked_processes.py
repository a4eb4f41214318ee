"""Processes that a test started, found by a mark in their environment, whatever has become of their parents."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

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


def wait_until_gone(mark: str, *, seconds: float = 20.0) -> None:
    """Wait for all of them to end, and say which do not."""
    end = time.monotonic() + seconds
    while (pids := living(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    names = [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ") for pid in pids]
    assert not pids, f"still there: {names}"


def wait_for(number: int, mark: str, *, seconds: float = 20.0) -> None:
    """Wait until so many of them live: one that is just being started has no environment to read for a moment."""
    end = time.monotonic() + seconds
    while (count := len(living(mark))) < number and time.monotonic() < end:
        time.sleep(0.02)
    assert count >= number


@contextlib.contextmanager
def none_survives(mark: str) -> Iterator[None]:
    """Kill what is left of a test's processes."""
    try:
        yield
    finally:
        for pid in living(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
