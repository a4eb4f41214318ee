"""Signals that end a command, here and in forked processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from nnunet_sfr.interruption import InterruptedRunError, ending_signals_raise
from tests.patience import PATIENCE

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
            worker = context.Process(target=time.sleep, args=(1000,), daemon=True)
            worker.start()
            worker.terminate()
            worker.join(PATIENCE)
            assert worker.exitcode == -signal.SIGTERM


WORKERS = """
import multiprocessing
from nnunet_sfr.interruption import ending_signals_raise

context = multiprocessing.get_context("fork")
lock = context.Lock()
lock.acquire()
with ending_signals_raise():
    workers = [context.Process(target=lock.acquire) for _ in range(3)]
    for worker in workers:
        worker.start()
    print(*(worker.pid for worker in workers), flush=True)
    workers[0].join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_no_forked_worker_outlives_a_killed_command() -> None:
    """As the workers of a pool whose lock died with one of them, these wait for a lock that is never released."""
    with subprocess.Popen([sys.executable, "-c", WORKERS], stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 3
        try:
            process.kill()
            # each has its copy of standard output: it ends when the last of them has ended
            assert select.select([process.stdout], [], [], PATIENCE)[0], "a worker is still there"
            assert process.stdout.read() == ""
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
