"""Who changes a data set does it alone, and others are told who it is.

There is one ``sfr_run`` or ``sfr_add_labels`` at a time on a data set. Another lock is for ``sfr_plan_and_preprocess``
and ``sfr_add_labels``, which write plans and preprocessed cases; ``sfr_run`` calls the former as one of its steps.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from nnunet_sfr.atomic import process_exists, write_json
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import DatasetPaths

LOCK_TIMEOUT = 60.0
"""Seconds to wait for the processes of an earlier step to be gone; killing them takes far less."""


@dataclass(frozen=True)
class Holder:
    """Who works on a data set."""

    user: str
    host: str
    pid: int
    since: str
    command: str

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; of another machine that cannot be said from here, so it counts as running."""
        if self.host != socket.gethostname():
            return True
        return process_exists(self.pid)

    @property
    def program(self) -> str:
        """The command's name, as ``sfr_run``."""
        return self.command.partition(" ")[0]

    @classmethod
    def read(cls, file: Path) -> Holder | None:
        """Who wrote a file; None if that is unknown."""
        try:
            return cls(**read_json(file, "", {"pid": int, "host": str, "command": str}))
        except (UserError, TypeError):
            return None

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}, since {self.since}: {self.command}"


@contextlib.contextmanager
def locked(paths: DatasetPaths, command: str) -> Iterator[None]:
    """Hold the data set's lock, with nothing of an earlier run alive.

    Args:
        paths: of the data set.
        command: as the user typed it, for others to read.

    Raises:
        UserError: somebody else holds it.
    """
    with held(paths.lock, paths.lock_holder, command, _is_at_work(paths.dataset_name, "sfr_run")):
        try:
            # of an sfr_run that was killed: its step is killed too, which takes a moment
            step_lock = file_lock(paths.step_lock)
            step_lock.acquire(timeout=LOCK_TIMEOUT)
        except Timeout:
            raise UserError(f"{paths.step_lock}: processes of an earlier sfr_run still live; end them") from None
        step_lock.release()
        yield


@contextlib.contextmanager
def planning_locked(paths: DatasetPaths, command: str) -> Iterator[None]:
    """Be the only one that writes plans and preprocessed cases of a data set.

    Args:
        paths: of the data set.
        command: as the user typed it, for others to read.

    Raises:
        UserError: somebody else does.
    """
    refusal = _is_at_work(paths.dataset_name, "sfr_plan_and_preprocess")
    with held(paths.planning_lock, paths.planning_lock_holder, command, refusal):
        yield


@contextlib.contextmanager
def held(file: Path, holder_file: Path, command: str, refusal: Callable[[Holder | None], str]) -> Iterator[None]:
    """Hold a lock, and say in a file beside it who does.

    Args:
        file: to lock; its folder is made where it is missing, and removed again if nothing else came to be in it.
        holder_file: where others read who holds it.
        command: as the user typed it.
        refusal: what to tell the user where somebody else holds it, None being one who has not said yet who it is.

    Raises:
        UserError: somebody else holds it, or the folder cannot be written to or has no locks.
    """
    made = not file.parent.exists()
    with file_errors_explained(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    with file_errors_explained(file):
        lock = file_lock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(refusal(Holder.read(holder_file))) from None
        except NotImplementedError:
            raise UserError(f"{file}: cannot be locked on this file system; use one that has locks") from None
    try:
        write_json(asdict(this_process(command)), holder_file)
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        if made:
            _remove_unless_used(file)
        lock.release()


def _is_at_work(dataset_name: str, usual: str) -> Callable[[Holder | None], str]:
    """That a command is at work on a data set; ``usual`` as long as the holder has not said which."""

    def refusal(holder: Holder | None) -> str:
        return (
            f"{dataset_name}: another {holder.program if holder else usual} is at work on this data set "
            f"({holder or 'just started'}); wait for it, or end it"
        )

    return refusal


def file_lock(file: Path) -> BaseFileLock:
    """The lock of a file that everybody who can write beside it may take: of a data set that several people share.

    Args:
        file: to lock; it is made, and stays.
    """
    return FileLock(file, mode=0o666)


def _remove_unless_used(file: Path) -> None:
    """Remove a folder in which nothing came to be but a lock that we hold: nnU-Net would take it for a data set."""
    if os.listdir(file.parent) == [file.name]:
        with contextlib.suppress(OSError):  # somebody has begun to use it
            file.unlink()
            file.parent.rmdir()


def read_holder(paths: DatasetPaths) -> Holder | None:
    """Who holds the lock, or held it when it was killed; None if its holder is unknown."""
    return Holder.read(paths.lock_holder)


def this_process(command: str) -> Holder:
    """This process, since now.

    Args:
        command: as the user typed it.
    """
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return Holder(_user(), socket.gethostname(), os.getpid(), since, command)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as containers have them
        return str(os.getuid())
