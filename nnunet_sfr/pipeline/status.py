"""What ``sfr_run --status`` shows."""

from __future__ import annotations

import shlex
import socket
import time
from dataclasses import replace

from nnunet_sfr.command_lines import AUTO, shell_text
from nnunet_sfr.errors import UserError
from nnunet_sfr.locking import Holder, file_lock, read_holder
from nnunet_sfr.paths import FINAL_CHECKPOINT, TEACHER_CHECKPOINT, DatasetPaths
from nnunet_sfr.pipeline.decisions import Action, decide
from nnunet_sfr.pipeline.digests import HashCache
from nnunet_sfr.pipeline.nnunet_steps import Train
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.sequence import steps_of
from nnunet_sfr.pipeline.state import DONE, RUNNING, History, StepRecord
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.wording import aligned

WAITING, NEXT = "waiting", "next"


def status_text(options: RunOptions) -> str:
    """A table of the steps, what comes next, and where things are."""
    folder = options.paths
    history = History.read(folder)
    holder = read_holder(folder)
    if holder is not None and not _is_at_work(holder, folder):
        holder = None
    if holder is None:
        history.end_what_was_killed()
    cache = HashCache(folder.hashes)
    rows = [["step", "status", "time", ""]]
    total = 0.0
    following: Step | None = None
    for step in steps_of(options):
        record = history.record_of(step.result_name)
        status, remark = _status_of(step, record, cache) if following is None else (WAITING, "")
        if status != DONE and following is None:
            following = step
        seconds = _seconds(record)
        total += seconds
        rows.append([step.name, status, clock(seconds) if seconds else "", remark])
    lines = [f"{options.dataset_name}, {options.plans}, {options.configuration}, fold {options.fold}: {folder.name}"]
    lines += ["", *aligned([*rows, ["together", "", clock(total), ""]]), ""]
    lines += _what_comes(following, holder)
    lines += [f"state and logs: {folder.folder}"]
    return "\n".join([*lines, *closing_lines(options, history)])


def closing_lines(options: RunOptions, history: History) -> list[str]:
    """Where the model is and how to use it, once there is one.

    Args:
        options: of the run.
        history: of the run.
    """
    train = Train(Project(options), options.rounds)
    record = history.record_of(train.result_name)
    if record is None or record.status != DONE:
        return []
    lines = replace(options.command_lines, device=_device_used(record, options))
    command = lines.predict(train.trainer, "IMAGES", "PREDICTIONS")
    return [
        f"model: {train.training} ({FINAL_CHECKPOINT}; the teacher: {TEACHER_CHECKPOINT})",
        f"predict with: {shell_text(command)}",
    ]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _is_at_work(holder: Holder, paths: DatasetPaths) -> bool:
    """Whether a holder lives: on another machine, where its lock is not free, as it is when a process was killed."""
    if holder.host == socket.gethostname() or not paths.lock.is_file():
        return holder.is_alive
    try:
        with file_lock(paths.lock).acquire(timeout=0):
            return False
    except (OSError, NotImplementedError):  # held (filelock's Timeout is one), or it cannot be said from here
        return True


def _status_of(step: Step, record: StepRecord | None, cache: HashCache) -> tuple[str, str]:
    """The status of a step whose predecessors are done, and a remark."""
    if record is not None and record.status == RUNNING:
        return RUNNING, ""
    if record is None and not step.ignores_records:
        return NEXT, ""
    try:
        decision = decide(step, record, cache)
    except (UserError, OSError, LookupError) as error:
        return NEXT, str(error)
    return (DONE, "") if decision.action is Action.SKIP else (NEXT, decision.reason)


def _seconds(record: StepRecord | None) -> float:
    if record is None:
        return 0.0
    return record.seconds + (record.running_seconds(time.time()) if record.status == RUNNING else 0.0)


def _what_comes(following: Step | None, holder: Holder | None) -> list[str]:
    lines = [] if holder is None else [f"at work: {holder}"]
    if following is None:
        return [*lines, "everything is done"]
    return [*lines, f"next: {following.title}"] if holder is None else lines


def _device_used(record: StepRecord, options: RunOptions) -> str:
    """The device of the run, or what ``auto`` stood for in the training."""
    words = shlex.split(record.command)
    if options.device != AUTO or "-device" not in words:
        return options.device
    return words[words.index("-device") + 1]
