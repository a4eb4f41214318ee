"""A step's process: its output, its exit code, and that nothing of it outlives ``sfr_run``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from nnunet_sfr.errors import UserError
from nnunet_sfr.pipeline import supervise
from nnunet_sfr.pipeline.processes import find_command, run_command
from tests.patience import PATIENCE, wait_until
from tests.pipeline.marked_processes import MARK, living, none_survives, wait_for, wait_until_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RUN = """
import signal
import sys
from pathlib import Path
from nnunet_sfr.interruption import InterruptedRunError, ending_signals_raise
from nnunet_sfr.pipeline.processes import run_command

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which the tests may run, has it ignored
folder, script = sys.argv[1:]
try:
    with ending_signals_raise():
        code = run_command(["sh", "-c", script], Path(folder, "log"), Path(folder, "lock"))
except InterruptedRunError as interruption:
    code = interruption.exit_code
sys.exit(code)
"""
"""What sfr_run does with a step."""

SUPERVISE = "sys.exit(supervise.main(sys.argv[1:]))"

PATIENT = """
import subprocess

started = subprocess.Popen
later = "import sys; from nnunet_sfr.pipeline import supervise; supervise.GRACE = 1e6; "
later += "sys.exit(supervise.main(sys.argv[1:]))"
subprocess.Popen = lambda command, **options: started([command[0], "-c", later, *command[3:]], **options)
"""
"""Before it: the supervisor never loses its patience by itself."""

STUBBORN = "trap '' INT; echo begun; while true; do sleep 0.05; done"
LISTENS = "trap 'echo heard' INT; echo begun; while true; do sleep 0.05; done"
"""It does not end either."""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks every process of the test, and ends what is left of them."""
    monkeypatch.setenv(MARK, str(tmp_path))
    with none_survives(str(tmp_path)):
        yield str(tmp_path)


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Start:
    """Run a shell script as a step, up to the moment when it says that it has begun."""

    def begin(script: str, before: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", before + RUN, tmp_path, script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        return process

    return begin


def is_free(lock: Path) -> bool:
    try:
        FileLock(lock).acquire(timeout=0).lock.release()
    except Timeout:
        return False
    return True


def test_output_goes_to_screen_and_log_and_the_exit_code_comes_back(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log, lock = tmp_path / "logs" / "step.log", tmp_path / "lock"
    for code in (0, 3):
        assert run_command(["sh", "-c", f"echo out; echo error >&2; exit {code}"], log, lock) == code
    assert capfdbinary.readouterr().out == b"out\nerror\n" * 2
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [line.partition("$ ")[2] or line for line in lines] == [
        *("sh -c 'echo out; echo error >&2; exit 0'", "out", "error"),
        *("sh -c 'echo out; echo error >&2; exit 3'", "out", "error"),
    ]
    assert run_command(["sh", "-c", "kill -KILL $$"], log, lock) == 128 + signal.SIGKILL
    assert is_free(lock)


def test_a_command_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sfr_dance: not found beside"):
        find_command("sfr_dance")


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path, mark: str) -> None:
    """A pool whose worker hangs would hold the next step up, or write into its files."""
    script = "sleep 1000 & setsid sleep 1000 & exit 5"
    assert run_command(["sh", "-c", script], tmp_path / "log", tmp_path / "lock") == 5
    assert living(mark) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_as_ctrl_c_does(
    signum: signal.Signals, start: Start, mark: str, tmp_path: Path
) -> None:
    process = start("trap 'echo ending; exit 1' INT; echo begun; while true; do sleep 0.05; done")
    process.send_signal(signum)
    output, _ = process.communicate(timeout=PATIENCE)
    assert output == b"", "a traceback of nnU-Net's is for the log"
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith("\nending\n"), (
        "the command can put its things in order"
    )
    assert process.returncode == 128 + signum
    assert living(mark) == []


def test_a_second_signal_does_not_wait(start: Start, mark: str, tmp_path: Path) -> None:
    process = start(LISTENS, PATIENT)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "\nheard\n" in (tmp_path / "log").read_text(encoding="utf-8"), "the command was asked to end")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert living(mark) == []


def test_a_command_that_does_not_listen_is_killed_in_the_end(tmp_path: Path, mark: str) -> None:
    impatient = f"import sys; from nnunet_sfr.pipeline import supervise; supervise.GRACE = 0.3; {SUPERVISE}"
    command = [sys.executable, "-c", impatient, str(tmp_path / "lock"), "sh", "-c", STUBBORN]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.write(b".")
    process.stdin.flush()
    assert process.wait(timeout=PATIENCE) == 128 + signal.SIGKILL
    assert living(mark) == []


def test_nothing_outlives_a_killed_sfr_run(start: Start, mark: str, tmp_path: Path) -> None:
    """Not the command, nor its children, be they in another session and deaf to signals."""
    process = start("trap '' INT TERM; sleep 1000 & setsid sh -c 'sleep 1000; true' & echo begun; wait")
    wait_for(5, mark)  # we, the supervisor, the shell, and what it started
    assert not is_free(tmp_path / "lock")
    process.kill()
    process.wait()
    wait_until_gone(mark)
    assert is_free(tmp_path / "lock")


def test_the_command_does_not_outlive_its_supervisor(start: Start, mark: str, tmp_path: Path) -> None:
    process = start(STUBBORN)
    supervisor = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()[0])
    os.kill(supervisor, signal.SIGKILL)
    assert process.wait(timeout=PATIENCE) == 128 + signal.SIGKILL
    wait_until_gone(mark)


def test_a_step_waits_for_the_processes_of_the_one_before(tmp_path: Path) -> None:
    hasty = f"import sys; from nnunet_sfr.pipeline import supervise; supervise.LOCK_TIMEOUT = 0.1; {SUPERVISE}"
    command = [sys.executable, "-c", hasty, str(tmp_path / "lock"), "sh", "-c", "echo at work"]
    with FileLock(tmp_path / "lock"):
        held = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, check=False)
    assert (held.returncode, held.stdout) == (supervise.EX_TEMPFAIL, "")
    assert "the processes of an earlier step still live" in held.stderr
