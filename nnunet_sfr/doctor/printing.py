"""The report on the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Sequence

from nnunet_sfr.command_lines import Command, shell_text
from nnunet_sfr.doctor.findings import Finding, Level, Section, count
from nnunet_sfr.paths import PREPROCESSED

_MARK = max(len(level.value) for level in Level)
_SUBJECT = len(PREPROCESSED)
"""Characters of the two columns before the text."""

_NARROWEST, _WIDEST = 80, 140
"""Characters of a line."""
_FALLBACK = (120, 60)
"""Columns and lines where the report goes to no terminal."""


def section_lines(section: Section) -> list[str]:
    """A section as it is printed: its title, then a line for each finding, wrapped to the terminal."""
    return ["", section.title, *(line for finding in section.findings for line in _lines_of(finding))]


def summary(sections: Sequence[Section]) -> str:
    """How many findings of each kind there are."""
    problems, notes = count(sections, Level.PROBLEM), count(sections, Level.NOTE)
    return f"{_number(problems, 'problem')}, {_number(notes, 'note')}"


def last_lines(sections: Sequence[Section], action: str, command: Command) -> str:
    """Counts, what comes next, and its command on a line of its own, to be pasted.

    Args:
        sections: of the report.
        action: what comes next, in words.
        command: that does it.
    """
    return f"\n{summary(sections)}; next: {action}\n{shell_text(command)}"


def as_json(sections: Sequence[Section], command: Command) -> str:
    """Every finding with its section, level and details, and the command that comes next.

    Args:
        sections: of the examination.
        command: that comes next.
    """
    findings = [
        {"section": section.title, **dataclasses.asdict(finding), "level": finding.level.value}
        for section in sections
        for finding in section.findings
    ]
    report = {"problems": count(sections, Level.PROBLEM), "findings": findings, "next": shell_text(command)}
    return json.dumps(report, indent=2)


def _lines_of(finding: Finding) -> list[str]:
    indent = " " * (2 + _MARK + 2 + _SUBJECT + 2)
    first = f"  {finding.level.value:{_MARK}}  {finding.subject:{_SUBJECT}}  "
    wrapped = _wrap(finding.text, first, indent)
    return wrapped + (_wrap(finding.remedy, f"{indent}-> ", f"{indent}   ") if finding.remedy else [])


def _wrap(text: str, first: str, others: str) -> list[str]:
    width = min(max(shutil.get_terminal_size(_FALLBACK).columns, _NARROWEST), _WIDEST)
    # paths and commands are to be copied: a word is never broken
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _number(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
