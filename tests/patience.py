"""How long a test waits for what an idle machine does at once.

A deadline ends a test that hangs, and measures nothing: long enough for a machine that is busy with other things.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return as soon as the condition holds; ``what`` says what it means, for the message where it never does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
