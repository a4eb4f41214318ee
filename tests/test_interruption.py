"""Signals that end a command, here and in forked processes."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time

import pytest

from nnunet_sfr.interruption import InterruptedRunError, ending_signals_raise

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_raises_and_the_handler_before_comes_back(signum: signal.Signals, code: int) -> None:
    before = signal.signal(signum, signal.SIG_DFL)
    try:
        with pytest.raises(InterruptedRunError, match=signum.name) as raised, ending_signals_raise():
            signal.raise_signal(signum)
        assert raised.value.exit_code == code
        assert signal.getsignal(signum) == signal.SIG_DFL
    finally:
        signal.signal(signum, before)


def test_forked_workers_die_of_sigterm_at_any_moment() -> None:
    """nnU-Net's planner ends its pool this way: no worker may miss the signal, however early it comes."""
    context = multiprocessing.get_context("fork")
    with ending_signals_raise():
        for _ in range(20):
            worker = context.Process(target=time.sleep, args=(60,), daemon=True)
            worker.start()
            worker.terminate()
            worker.join(10)
            assert worker.exitcode == -signal.SIGTERM
