"""Signals that end a command, as an exception that nothing on the way catches."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class InterruptedRunError(BaseException):
    """A signal that ends a command arrived; no ``Exception``, so that nothing on the way catches it.

    Args:
        signum: of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@contextlib.contextmanager
def ending_signals_raise(names: Sequence[str] = ENDING_SIGNALS) -> Iterator[None]:
    """Let signals raise :class:`InterruptedRunError` in this process and context, unless nohup has SIGHUP ignored.

    Forked processes keep the signals' usual effect; outside of the main thread nothing changes.

    Args:
        names: of the signals; those that this system does not have are left out.
    """
    process = os.getpid()

    def end(signum: int, frame: Any) -> None:
        if os.getpid() != process:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        raise InterruptedRunError(signum)

    signums = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        signums = []
    before = {signum: signal.getsignal(signum) for signum in signums}
    for signum in signums:
        if before[signum] != signal.SIG_IGN:
            signal.signal(signum, end)
    try:
        yield
    finally:
        for signum in signums:
            signal.signal(signum, before[signum])
