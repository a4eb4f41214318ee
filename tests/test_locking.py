"""One sfr_run at a time on a data set, and one sfr_plan_and_preprocess."""

from __future__ import annotations

import errno
import getpass
import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from filelock import BaseFileLock, FileLock

from nnunet_sfr import locking
from nnunet_sfr.errors import UserError
from nnunet_sfr.locking import Holder, locked, planning_locked, read_holder
from nnunet_sfr.paths import RunPaths


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return RunPaths("Dataset042_Tiny", "nnUNetPlans", "3d_fullres", "all", "SFR_MT")


def test_the_second_is_told_who_the_first_is(run: RunPaths) -> None:
    other_fold = replace(run, fold=1, name="SFR_ACMT")
    with locked(run, "sfr_run -d 42"):
        written = json.loads(run.lock_holder.read_text(encoding="utf-8"))
        assert (written["user"], written["host"], written["pid"]) == (
            getpass.getuser(),
            socket.gethostname(),
            os.getpid(),
        )
        said = (
            rf"Dataset042_Tiny: another sfr_run is at work on this data set \(.*process {os.getpid()}.*sfr_run -d 42\)"
        )
        with pytest.raises(UserError, match=said), locked(other_fold, "sfr_run -d 42 -f 1"):
            pass
        holder = read_holder(run)
        assert holder is not None
        assert holder.is_alive
    assert read_holder(run) is None
    with locked(other_fold, "sfr_run -d 42 -f 1"):
        pass


def test_planning_is_possible_beside_a_run_and_once(run: RunPaths) -> None:
    planning = "sfr_plan_and_preprocess -d 42"
    with locked(run, "sfr_run -d 42"), planning_locked(run, planning):
        holder = read_holder(run)
        assert holder is not None
        assert holder.program == "sfr_run", "each lock has its own"
        said = rf"another sfr_plan_and_preprocess is at work on this data set \(.*process {os.getpid()}.*{planning}\)"
        with pytest.raises(UserError, match=said), planning_locked(run, f"{planning} -c 2d"):
            pass
    assert not run.planning_lock_holder.exists()
    with planning_locked(run, planning):
        pass


def test_the_second_is_told_before_the_first_has_said_who_it_is(run: RunPaths) -> None:
    run.lock.parent.mkdir()
    said = r"another sfr_plan_and_preprocess is at work on this data set \(just started\)"
    with FileLock(run.planning_lock), pytest.raises(UserError, match=said), planning_locked(run, "sfr_add_labels"):
        pass


def test_who_was_killed_is_not_alive(run: RunPaths) -> None:
    holder = Holder("me", socket.gethostname(), 2**22 + 1, "2026-01-01", "sfr_run")  # above Linux's highest id
    assert not holder.is_alive
    assert replace(holder, host="elsewhere").is_alive, "which cannot be seen from here"


def test_a_step_that_has_not_ended_yet(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT", 0.1)
    run.lock.parent.mkdir()
    said = "processes of an earlier sfr_run still live"
    with FileLock(run.step_lock), pytest.raises(UserError, match=said), locked(run, "sfr_run"):
        pass
    with locked(run, "sfr_run"):
        pass


def test_a_colleague_of_the_same_group_may_lock_too(run: RunPaths) -> None:
    before = os.umask(0o022)
    try:
        with planning_locked(run, "sfr_plan_and_preprocess"):
            assert run.planning_lock.stat().st_mode & 0o666 == 0o666
            run.fingerprint_file.write_text("something to stay for")
    finally:
        os.umask(before)


def test_a_folder_that_holds_nothing_but_the_lock_is_removed(run: RunPaths) -> None:
    """nnU-Net would take it for a data set of this number."""
    with planning_locked(run, "sfr_plan_and_preprocess"):
        assert run.planning_lock.exists()
    assert not run.preprocessed.exists()
    with planning_locked(run, "sfr_plan_and_preprocess"):
        run.fingerprint_file.write_text("made")
    assert run.fingerprint_file.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)), r"\.sfr_run\.planning\.lock: no locks available"),
        (NotImplementedError(), r"\.sfr_run\.planning\.lock: cannot be locked on this file system"),
    ],
)
def test_a_file_system_without_locks_is_named(error: Exception, said: str, run: RunPaths) -> None:
    with (
        mock.patch.object(BaseFileLock, "acquire", side_effect=error),
        pytest.raises(UserError, match=said),
        planning_locked(run, "sfr_plan_and_preprocess"),
    ):
        pass
