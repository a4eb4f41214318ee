"""Runs the steps of a run: what is complete is skipped, what was stopped is continued."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from nnunet_sfr.atomic import remove_leftovers
from nnunet_sfr.command_lines import AUTO, Command, shell_text
from nnunet_sfr.cores import choose_processes
from nnunet_sfr.errors import StepError, UserError
from nnunet_sfr.interruption import InterruptedRunError, ending_signals_raise
from nnunet_sfr.label_journal import require_completed
from nnunet_sfr.locking import locked
from nnunet_sfr.paths import RunPaths
from nnunet_sfr.pipeline.decisions import Action, StepDecision, decide, result_of
from nnunet_sfr.pipeline.digests import HashCache
from nnunet_sfr.pipeline.nnunet_steps import NNUNetStep
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.processes import run_command
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.sequence import steps_of
from nnunet_sfr.pipeline.state import DONE, FAILED, INTERRUPTED, RUNNING, History, StepRecord
from nnunet_sfr.pipeline.status import clock, closing_lines
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.replacement import kept_aside, remove_kept_aside

Runner = Callable[[Sequence[str], Path, Path], int]
"""Runs a command with a log and a lock and returns its exit code: :func:`run_command`."""

_WHICH_DEVICE = "from nnunet_sfr.devices import resolve_device; print(resolve_device('auto').type)"


def run_steps(options: RunOptions, typed: str, run: Runner = run_command) -> None:
    """Take every step that is not done.

    Args:
        options: of the run.
        typed: the command as the user gave it, for others who find the data set locked.
        run: runs a command.

    Raises:
        UserError: another run holds the data set, an sfr_add_labels was stopped half-way, or something else is wrong
            that the user can fix.
        StepError: a step failed.
        InterruptedRunError: a signal ended it; the state says where it was.
    """
    folder = options.paths
    Project(options).check()
    with ending_signals_raise(), locked(folder, typed):
        if folder.raw_is_here():
            require_completed(folder.raw)
        history = History.read(folder)
        history.end_what_was_killed()
        for place in (folder.lock.parent, folder.all_runs, folder.folder):
            place.mkdir(parents=True, exist_ok=True)
            remove_leftovers(place)
        _say(f"{options.dataset_name}, {options.plans}, {options.configuration}, fold {options.fold}: {folder.name}")
        _say(f"state and logs: {folder.folder}")
        choice = choose_processes(os.environ)  # which the steps inherit
        if choice:
            _say(choice)
        steps = steps_of(options)
        walker = _StepRunner(folder, history, HashCache(folder.hashes), run)
        for number, step in enumerate(steps, start=1):
            walker.take(step, f"[{number}/{len(steps)}] {step.name}: {step.title}")
        _say("\n".join(["", *closing_lines(options, history)]))


@dataclass
class _StepRunner:
    folder: RunPaths
    history: History
    cache: HashCache
    run: Runner

    def take(self, step: Step, heading: str) -> None:
        """One step, if it has to be."""
        record = self.history.record_of(step.result_name)
        if record is not None and record.status != DONE:
            step.after_kill()
        step.prepare()
        decision = decide(step, record, self.cache)
        if decision.action is Action.SKIP:
            _say(f"{heading}: done{_in_brackets(decision.reason)}")
            found = record or StepRecord(step.result_name, "", DONE, decision.inputs, _now())
            done = replace(found, status=DONE, inputs=decision.inputs, outputs=decision.outputs)
            self.cache.save()
            _remove_kept_aside(step)
            if self.history.own.records.get(step.name) != done:
                self.history.own.put(step.name, done)
            return
        _say(f"\n{heading}{_in_brackets(decision.reason)}")
        if record is None or decision.action is Action.REDO:  # what has been accepted once is not asked about again
            step.check_inputs()
        if decision.action is Action.REDO:
            step.set_aside()
        command = self._with_device(step, decision.command(step))
        _say(f"$ {shell_text(command)}")
        self.cache.save()
        begun = self._begin(step, decision, command, record)
        self.history.own.put(step.name, begun)
        self._attempt(step, command, begun)

    def _begin(self, step: Step, decision: StepDecision, command: Command, before: StepRecord | None) -> StepRecord:
        return StepRecord(
            result=step.result_name,
            command=shell_text(command),
            status=RUNNING,
            inputs=decision.inputs,
            started=_now(),
            seconds=0.0 if before is None else before.seconds,
            attempts=1 if before is None else before.attempts + 1,
            log=str(self.folder.log(step.name).relative_to(self.folder.folder)),
        )

    def _attempt(self, step: Step, command: Command, begun: StepRecord) -> None:
        start = time.monotonic()
        try:
            code = self.run(command, self.folder.log(step.name), self.folder.step_lock)
        except InterruptedRunError:
            self.history.own.put(step.name, _ended(begun, INTERRUPTED, start))
            raise
        except Exception:
            self.history.own.put(step.name, _ended(begun, FAILED, start))
            raise
        outputs = None
        if code == 0:
            for place in {step.result.parent, step.result}:
                if place.is_dir():
                    remove_leftovers(place)
            outputs = result_of(step, self.cache)
        status = FAILED if outputs is None else DONE
        ended = replace(_ended(begun, status, start), exit_code=code, outputs=outputs)
        self.history.own.put(step.name, ended)
        self.cache.save()
        log = self.folder.log(step.name)
        earlier = kept_aside(step.result)
        kept = f"; the earlier result is kept in {earlier}" if earlier.exists() else ""
        if code != 0:
            raise StepError(f"step {step.name} failed (exit code {code}); its log is {log}{kept}", code)
        if outputs is None:
            raise StepError(
                f"step {step.name} ended without an error, but its result is not there; its log is {log}{kept}", 1
            )
        _remove_kept_aside(step)
        _say(f"--- {step.name}: done in {clock(ended.seconds)}")

    def _with_device(self, step: Step, command: Command) -> Command:
        """nnU-Net's commands do not know ``-device auto``."""
        if not isinstance(step, NNUNetStep) or step.options.device != AUTO:
            return command
        return (*command, "-device", self._best_device)

    @cached_property
    def _best_device(self) -> str:
        """What ``auto`` stands for on this machine; asked in a process of its own, for it takes torch."""
        asked = subprocess.run([sys.executable, "-c", _WHICH_DEVICE], capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            raise UserError(f"-device auto: torch cannot say what there is ({asked.stderr.strip()}); choose a -device")
        return asked.stdout.strip()


def _remove_kept_aside(step: Step) -> None:
    for result in step.results:
        remove_kept_aside(result)


def _ended(begun: StepRecord, status: str, start: float) -> StepRecord:
    seconds = round(begun.seconds + time.monotonic() - start, 1)
    return replace(begun, status=status, seconds=seconds, ended=_now())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _in_brackets(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _say(text: str) -> None:
    print(text, flush=True)
