"""Signals that end a command, as an exception that nothing on the way catches."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from nnunet_sfr.linux_processes import die_with_parent

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

    def end(signum: int, frame: Any) -> None:
        raise InterruptedRunError(signum)

    signums = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        signums = []
    before = {signum: signal.getsignal(signum) for signum in signums}
    raising = [signum for signum in signums if before[signum] != signal.SIG_IGN]
    for signum in raising:
        signal.signal(signum, end)
    _forks.handled.append(raising)
    try:
        yield
    finally:
        _forks.handled.remove(raising)
        for signum in signums:
            signal.signal(signum, before[signum])


class _Forks:
    """Gives forked processes the signals' usual effect from their first moment, and lets none outlive its parent.

    ``Pool.terminate`` sends SIGTERM and waits. Python forgets what arrives between a fork and its own handlers, and a
    worker would live for ever; blocked meanwhile, the signal arrives when the usual effect is back.

    Where a command is killed and one of its pool's workers with it, the other workers wait for ever for the lock that
    the dead worker held. Linux therefore kills them with their parent; but not those that a pool's thread forks in the
    place of workers that ended, for they would die with that thread.
    """

    def __init__(self) -> None:
        self.handled: list[list[int]] = []
        self._masks = threading.local()
        self._parent: int | None = None
        if hasattr(os, "register_at_fork") and hasattr(signal, "pthread_sigmask"):
            os.register_at_fork(
                before=self._block, after_in_parent=self._unblock, after_in_child=self._usual_effect_in_child
            )

    def _signums(self) -> set[int]:
        return {signum for signums in self.handled for signum in signums}

    def _block(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._parent = os.getpid() if self.handled and in_main_thread else None
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signums())

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _usual_effect_in_child(self) -> None:
        if self._parent is not None:
            die_with_parent(self._parent)
        for signum in self._signums():
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        self.handled.clear()
        self._unblock()


_forks = _Forks()
