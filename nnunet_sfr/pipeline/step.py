"""What every step of a run has in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.command_lines import Command, CommandLines
from nnunet_sfr.paths import portable_name
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.state import StepRecord


class Step:
    """One public command, what it reads and what it writes.

    Args:
        project: finds the files.
        round_index: 0 for SFR, from 1 for the rounds of SFR+.
    """

    kind: str
    """The last part of its name."""
    title: str
    """What it does, for people."""
    complete_if_present = True
    """Whether a result is complete once its files are there, given that older ones have been discarded."""
    may_be_edited = False
    """Whether a complete result stays as it is when it was changed by hand."""
    ignores_records = False
    """Whether :meth:`found_complete` knows more than any record."""

    def __init__(self, project: Project, round_index: int = 0) -> None:
        self.project = project
        self.round_index = round_index

    @property
    def options(self) -> RunOptions:
        return self.project.options

    @property
    def command_lines(self) -> CommandLines:
        return self.options.command_lines

    @property
    def name(self) -> str:
        """Its key in the state, and the name of its log."""
        return self.kind if self.round_index == 0 else f"round-{self.round_index}-{self.kind}"

    @property
    def result_name(self) -> str:
        """:attr:`result` in words that survive a move of nnU-Net's folders."""
        return portable_name(self.result)

    @property
    def command(self) -> Command:
        """As a user types it, from the beginning."""
        raise NotImplementedError

    @property
    def result(self) -> Path:
        """What it writes: two steps that write the same are one, whatever run they belong to."""
        raise NotImplementedError

    @property
    def results(self) -> Sequence[Path]:
        """:attr:`result`, and what else is written with it and belongs to it."""
        return [self.result]

    def inputs(self) -> Parts:
        """Everything that the result depends on; called when the steps before are done."""
        raise NotImplementedError

    def inputs_of_earlier_versions(self) -> Parts:
        """Parts that records of earlier versions have otherwise, by the names that they have in :meth:`inputs`: whole
        sections of settings, of which the step reads a part, or dataset.json without keys that were not recorded yet. A
        record that has them as they are now is up to date.
        """
        return {}

    def outputs(self) -> dict[str, FileSet]:
        """The files of the result, all there when it is complete; nothing where none can be named yet."""
        raise NotImplementedError

    def after_kill(self) -> None:
        """Clear away what keeps the command from continuing after it was killed."""

    def prepare(self) -> None:
        """Make sure that :meth:`inputs` can be asked."""

    def check_inputs(self) -> None:
        """Refuse inputs that the command would take and its user should not; called before the command starts over.

        Raises:
            UserError: naming what is wrong with them.
        """

    @property
    def command_from_scratch(self) -> Command:
        """To start again when the inputs changed."""
        return self.command

    @property
    def command_continued(self) -> Command:
        """To continue from what is there."""
        return self.command

    def set_aside(self) -> None:
        """Put a result of other inputs aside, where it stays until there is a new one.

        This comes before the command, although some can overwrite: killed before it has done so, the next one would
        take the old result for its own.
        """

    def has_taken_in(self, changed: Sequence[str]) -> bool:
        """Whether another command has brought the result up to date with inputs that changed.

        Args:
            changed: the names of their parts.
        """
        return False

    def brings_up_to_date(self, changed: Sequence[str]) -> bool:
        """Whether the command itself replaces what no longer fits inputs that changed, and keeps the rest.

        Args:
            changed: the names of their parts.
        """
        return False

    def was_replaced(self, record: StepRecord) -> bool:
        """Whether a complete result that may be edited is another program's, which wrote it over ours.

        Args:
            record: of the last attempt.
        """
        return False

    def found_complete(self) -> bool:
        """Whether a result that no record vouches for can be taken as it is, without running the command.

        Raises:
            UserError: it can neither be taken nor continued.
        """
        return False
