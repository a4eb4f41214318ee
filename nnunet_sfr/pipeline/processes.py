"""One step in a process of its own: its output on the screen and in a log file, and its end when we are to end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.interruption import ENDING_SIGNALS, InterruptedRunError
from nnunet_sfr.pipeline.supervise import shell_exit_code

_BLOCK = 2**16


def find_command(name: str) -> str:
    """The console script of this Python's environment, activated or not, or else the one on the path.

    Raises:
        UserError: there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise UserError(f"{name}: not found beside {sys.executable} or on the PATH; install nnunet_sfr and nnunetv2")
    return found


def run_command(command: Sequence[str], log: Path, lock: Path) -> int:
    """Run a command to its end, with its output on our standard output and appended to a log file.

    Args:
        command: the first word is the name of a console script.
        log: file to append to.
        lock: file that is locked as long as a process of the command lives.

    Returns:
        Its exit code, 128 + N where signal N ended it.

    Raises:
        InterruptedRunError: a signal arrived; nothing of the command lives any more.
    """
    supervised = [find_command(command[0]), *command[1:]]
    # unbuffered, as nnU-Net's prints would otherwise come in blocks of 8 kB, hours late
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"=== {datetime.now():%Y-%m-%d %H:%M:%S} $ {shlex.join(command)}\n".encode())
        process = subprocess.Popen(
            [sys.executable, "-m", "nnunet_sfr.pipeline.supervise", str(lock), *supervised],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _copy(process.stdout, file)
            return shell_exit_code(process.wait())
        except InterruptedRunError:
            with _next_signal_kills(process.stdin):
                _ask_to_end(process.stdin)
                # the tracebacks of a command that is told to end are for the log
                _copy(process.stdout, file, on_screen=False)
                process.wait()
            raise
        finally:
            _close(process.stdin)


def _copy(output: IO[bytes], log: IO[bytes], *, on_screen: bool = True) -> None:
    """Pass everything on until all that hold the other end have ended."""
    while block := os.read(output.fileno(), _BLOCK):
        log.write(block)
        log.flush()
        if not on_screen:
            continue
        with contextlib.suppress(OSError, ValueError):  # our screen may be gone; the log is not
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()


@contextlib.contextmanager
def _next_signal_kills(stdin: IO[bytes]) -> Iterator[None]:
    """Who presses Ctrl-C twice does not want to wait."""

    def kill(signum: int, frame: Any) -> None:
        _close(stdin)

    signums = [getattr(signal, name) for name in ENDING_SIGNALS]
    before = [signal.signal(signum, kill) for signum in signums]
    try:
        yield
    finally:
        for signum, handler in zip(signums, before, strict=True):
            signal.signal(signum, handler)


def _ask_to_end(stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        stdin.write(b".")
        stdin.flush()


def _close(stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        stdin.close()
