"""Runs one command and outlives everything that it started.

``python -m nnunet_sfr.pipeline.supervise LOCK COMMAND ...`` is the process between ``sfr_run`` and a step. ``sfr_run``
talks to it through standard input: a byte asks the command to end (SIGINT, then SIGKILL after ``GRACE`` seconds), and
the end of the stream, which comes when ``sfr_run`` itself was killed, kills it at once. It holds the lock as long as a
process of the command lives, so that no other step starts before.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from nnunet_sfr.linux_processes import adopt_orphans, die_with_parent
from nnunet_sfr.locking import LOCK_TIMEOUT, file_lock

GRACE = 5.0
"""Seconds between SIGINT and SIGKILL."""

LEFTOVERS_GRACE = 2.0
"""Seconds that processes of a command may take to end after it (multiprocessing's trackers do)."""

EX_TEMPFAIL = 75
"""Exit code where they are not."""

_POLL = 0.1


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code, 128 + N where signal N ended it."""
    lock, *command = arguments
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # sfr_run decides when to end. A handler and not SIG_IGN, which the command would inherit.
        signal.signal(signum, lambda signum, frame: None)
    try:
        with file_lock(Path(lock)).acquire(timeout=LOCK_TIMEOUT):
            adopt_orphans()
            return _run(command)
    except Timeout:
        print(f"error: {lock}: the processes of an earlier step still live; end them and try again", file=sys.stderr)
        return EX_TEMPFAIL


def shell_exit_code(code: int) -> int:
    """What a shell shows: subprocess has -N where signal N ended a process, a shell 128 + N."""
    return code if code >= 0 else 128 - code


def _run(command: Sequence[str]) -> int:
    supervisor = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        # in case the supervisor itself is killed
        die_with_parent(supervisor)

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare)
    _wait_or_end(process)
    _end_leftovers(process.pid)
    return shell_exit_code(process.returncode)


def _wait_or_end(process: subprocess.Popen[bytes]) -> None:
    """Until the command has ended, by itself or as ``sfr_run`` wishes."""
    kill_at = float("inf")
    while process.poll() is None:
        if select.select([sys.stdin], [], [], _POLL)[0]:
            if os.read(sys.stdin.fileno(), 1):
                _signal_group(process.pid, signal.SIGINT)
                kill_at = time.monotonic() + GRACE
            else:
                kill_at = 0.0
        if time.monotonic() > kill_at:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


def _end_leftovers(group: int) -> None:
    """Wait a moment for what the command left running, then kill it; returns when nothing lives any more."""
    patience = time.monotonic() + LEFTOVERS_GRACE
    try:
        # On Linux orphans become our children; elsewhere there are none to wait for, and the group is killed.
        while time.monotonic() < patience:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_POLL)
        while True:
            _signal_group(group, signal.SIGKILL)
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)
    except ChildProcessError:
        _signal_group(group, signal.SIGKILL)


def _children() -> list[int]:
    """Process ids of our children, on Linux; a process that left the group is found here."""
    children = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stream:
            # the name, in parentheses, may have any character; state and parent come next
            if int(stream.read().rpartition(")")[2].split()[1]) == os.getpid():
                children.append(int(entry))
    return children


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
