"""What a run has done: one readable JSON file, written before and after every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import Shape, read_json
from nnunet_sfr.paths import RunPaths
from nnunet_sfr.pipeline.digests import Digests

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"

_REMEDY = "delete it, and sfr_run looks at the results themselves"

_CLOCKS_DIFFER = 60.0
"""Seconds by which the clock of a file server may be ahead of ours."""

_RECORD: Shape = {
    "result": str,
    "command": str,
    "status": str,
    "inputs": {...: str},
    "started": str,
    "ended?": str | None,
    "outputs?": dict | None,
    "seconds?": float,
    "attempts?": int,
    "exit_code?": int | None,
    "log?": str | None,
}


@dataclass(frozen=True)
class StepRecord:
    """How it went with one step.

    Args:
        result: what the step writes, by which another run recognises it.
        command: as a user types it.
        status: running, done, failed or interrupted.
        inputs: digests of everything that the step depends on, when it began.
        started: when the last attempt began, or the result was found; ISO 8601.
        outputs: digests of its result; None where there is none.
        seconds: of all attempts that have ended.
        attempts: how often it was begun.
        exit_code: of the last attempt that ended by itself.
        log: what it said; relative to the folder of the state.
        ended: when the last attempt ended; None in records of earlier versions.
    """

    result: str
    command: str
    status: str
    inputs: Digests
    started: str
    outputs: Digests | None = None
    seconds: float = 0.0
    attempts: int = 0
    exit_code: int | None = None
    log: str | None = None
    ended: str | None = None

    def is_older_than(self, file: Path) -> bool:
        """Whether a file has been written to since the last attempt ended; False where that is not known."""
        if self.ended is None:
            return False
        return file.stat().st_mtime > datetime.fromisoformat(self.ended).timestamp() + _CLOCKS_DIFFER

    def running_seconds(self, now: float) -> float:
        """Seconds since the present attempt began.

        Args:
            now: seconds since the epoch.
        """
        return max(0.0, now - datetime.fromisoformat(self.started).timestamp())


@dataclass
class RunState:
    """The records of a run by the names of its steps.

    Args:
        file: where they are kept.
        records: of the steps that were begun.
    """

    file: Path
    records: dict[str, StepRecord] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> RunState:
        """The state on disk, or an empty one.

        Raises:
            UserError: it is damaged.
        """
        if not file.is_file():
            return cls(file)
        steps = read_json(file, _REMEDY, {"steps": {...: _RECORD}})["steps"]
        try:
            for record in steps.values():
                datetime.fromisoformat(record["started"])
                datetime.fromisoformat(record.get("ended") or record["started"])
            return cls(file, {name: StepRecord(**record) for name, record in steps.items()})
        except (ValueError, TypeError) as error:  # a time that is none, or a key that is not known
            raise UserError(f"{file}: is not the state of a run ({error}); {_REMEDY}") from None

    def save(self) -> None:
        steps = {name: asdict(record) for name, record in self.records.items()}
        write_json({"nnunet_sfr_version": __version__, "steps": steps}, self.file)

    def put(self, name: str, record: StepRecord) -> None:
        """Note how a step stands, on disk at once.

        Args:
            name: of the step.
            record: takes the place of an earlier one.
        """
        self.records[name] = record
        self.save()

    def end_what_was_killed(self) -> None:
        """Where nothing runs any more, what is said to run was killed; its log tells when."""
        for name, record in self.records.items():
            if record.status == RUNNING:
                log = self.file.parent / (record.log or "")
                seconds = record.running_seconds(log.stat().st_mtime) if log.is_file() else 0.0
                self.records[name] = replace(record, status=INTERRUPTED, seconds=record.seconds + seconds)


def recorded_commands(runs: RunPaths) -> dict[str, str]:
    """The command of the last attempt at each result, by the name of the result.

    Args:
        runs: any run with the plan and configuration.

    Raises:
        UserError: the state of a run is damaged.
    """
    records = [record for file in runs.states() for record in RunState.load(file).records.values() if record.command]
    records.sort(key=lambda record: datetime.fromisoformat(record.started))
    return {record.result: record.command for record in records}


@dataclass(frozen=True)
class History:
    """What this run and the others with the same plan have done; runs share results, and so records.

    Args:
        own: the state of this run.
        others: of the other runs.
    """

    own: RunState
    others: Sequence[RunState]

    @classmethod
    def read(cls, run: RunPaths) -> History:
        return cls(RunState.load(run.state), [RunState.load(file) for file in run.other_states()])

    def record_of(self, result: str) -> StepRecord | None:
        """The record of the last attempt at a result."""
        records = [record for state in (self.own, *self.others) for record in state.records.values()]
        found = [record for record in records if record.result == result]
        return max(found, key=lambda record: datetime.fromisoformat(record.started)) if found else None

    def end_what_was_killed(self) -> None:
        for state in (self.own, *self.others):
            state.end_what_was_killed()
