"""What to do about a step: skip it, continue it, or start it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from nnunet_sfr.command_lines import Command
from nnunet_sfr.pipeline.digests import Digests, HashCache, differing, merged
from nnunet_sfr.pipeline.state import DONE, StepRecord
from nnunet_sfr.pipeline.step import Step


class Action(Enum):
    SKIP = "skip"
    CONTINUE = "continue"
    REDO = "start again"


@dataclass(frozen=True)
class StepDecision:
    """What is to be done, and why.

    Args:
        action: skip, continue (from wherever the command finds itself), or discard the result and start again.
        reason: for people; empty where there is nothing to explain.
        inputs: digests of today.
        outputs: digests of the result; None if it is not complete.
    """

    action: Action
    reason: str
    inputs: Digests
    outputs: Digests | None

    def command(self, step: Step) -> Command:
        return step.command_from_scratch if self.action is Action.REDO else step.command_continued


def decide(step: Step, record: StepRecord | None, cache: HashCache) -> StepDecision:
    """Compare a step's record with its files.

    Args:
        step: the steps before it are done.
        record: of the last attempt at this result, by whatever run; None if there was none.
        cache: of hashes.

    Raises:
        UserError: there is a result that the command would neither take nor replace.
    """
    inputs = cache.digests(step.inputs())
    outputs = result_of(step, cache)
    if record is None:
        return _without_record(step, inputs, outputs)
    if step.ignores_records:
        # copied files have other times, by which such a step would be judged
        if outputs is not None and (record.status, record.inputs, record.outputs) == (DONE, inputs, outputs):
            return StepDecision(Action.SKIP, "", inputs, outputs)
        return _without_record(step, inputs, outputs)
    changed = _changed(step, record, inputs, cache)
    if changed and step.brings_up_to_date(changed):
        return StepDecision(Action.CONTINUE, f"changed since: {_listed(changed)}", inputs, outputs)
    if changed and not step.has_taken_in(changed):
        return StepDecision(Action.REDO, f"changed since: {_listed(changed)}", inputs, outputs)
    taken_in = "another command has taken in what changed" if changed else ""
    return _of_same_inputs(step, record, merged(record.inputs, inputs), outputs, taken_in)


def _changed(step: Step, record: StepRecord, inputs: Digests, cache: HashCache) -> list[str]:
    """The names of the inputs that have changed, whatever version wrote the record."""
    changed = differing(record.inputs, inputs)
    if not changed:
        return []
    earlier = cache.digests(step.inputs_of_earlier_versions())
    return [name for name in changed if name not in earlier or record.inputs.get(name) != earlier[name]]


def _of_same_inputs(
    step: Step, record: StepRecord, inputs: Digests, outputs: Digests | None, taken_in: str
) -> StepDecision:
    """Go by how the last attempt ended, and by what has become of its result.

    Args:
        step: of the run.
        record: of the last attempt.
        inputs: digests of today, which are the record's.
        outputs: of the result; None if it is not complete.
        taken_in: why the result holds although inputs changed; empty where they did not.
    """
    if outputs is None:
        reason = "its result is no longer complete" if record.status == DONE else f"{record.status} last time"
        return StepDecision(Action.CONTINUE, reason, inputs, None)
    if record.status != DONE:
        action = Action.SKIP if step.complete_if_present else Action.CONTINUE
        return StepDecision(action, f"{record.status} last time", inputs, outputs)
    if taken_in:
        return StepDecision(Action.SKIP, taken_in, inputs, outputs)
    if outputs == record.outputs:
        return StepDecision(Action.SKIP, "", inputs, outputs)
    if step.may_be_edited and step.was_replaced(record):
        return StepDecision(Action.REDO, "others have been written over its result", inputs, outputs)
    if step.may_be_edited:
        return StepDecision(Action.SKIP, "changed by hand, left alone", inputs, outputs)
    # somebody else has been at work on the result: the command is to judge it
    decision = _without_record(step, inputs, outputs)
    if decision.action is Action.SKIP:
        return decision
    return StepDecision(Action.CONTINUE, "its result has been changed by hand", inputs, outputs)


def result_of(step: Step, cache: HashCache) -> Digests | None:
    """Digests of a step's result; None if it is not complete.

    Args:
        step: of the run.
        cache: of hashes.
    """
    outputs = step.outputs()
    if not outputs or any(not files.files or files.missing() for files in outputs.values()):
        return None
    return cache.digests(outputs)


def _without_record(step: Step, inputs: Digests, outputs: Digests | None) -> StepDecision:
    if step.found_complete():
        return StepDecision(Action.SKIP, "" if step.ignores_records else "found complete", inputs, outputs)
    return StepDecision(Action.CONTINUE, "", inputs, outputs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
