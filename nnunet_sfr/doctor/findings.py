"""What a check returns: findings, each of them one line of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import first_names


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; a run does what it should."""
    PROBLEM = "problem"
    """Stops a run, or makes its result wrong."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: how bad it is.
        subject: what was looked at, in a word or two.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
        details: every case or file where ``text`` names the first ones alone.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A group of findings under a title."""

    title: str
    findings: tuple[Finding, ...]


Check = Callable[[], Iterable[Finding]]


def ok(subject: str, text: str) -> Finding:
    """A finding that all is well.

    Args:
        subject: what was looked at.
        text: what was found.
    """
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, remedy: str = "", details: Sequence[str] = ()) -> Finding:
    """A finding that stops no run.

    Args:
        subject: what was looked at.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
        details: every case or file where ``text`` names the first ones alone.
    """
    return Finding(Level.NOTE, subject, text, remedy, tuple(details))


def problem(subject: str, text: str, remedy: str = "", details: Sequence[str] = ()) -> Finding:
    """A finding that stops a run, or makes its result wrong.

    Args:
        subject: what was looked at.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
        details: every case or file where ``text`` names the first ones alone.
    """
    return Finding(Level.PROBLEM, subject, text, remedy, tuple(details))


def section(title: str, checks: Iterable[tuple[str, Check]]) -> Section:
    """Run checks one after the other.

    Args:
        title: of the section.
        checks: a subject, for what stops a check with a :class:`UserError`, and the check.
    """
    findings: list[Finding] = []
    for subject, check in checks:
        try:
            findings += check()
        except UserError as error:
            findings.append(problem(subject, str(error)))
    return Section(title, tuple(findings))


def count(sections: Iterable[Section], level: Level) -> int:
    """How many findings have this level.

    Args:
        sections: with findings.
        level: to count.
    """
    return sum(finding.level is level for part in sections for finding in part.findings)


def some_names(names: Sequence[str]) -> str:
    """The first names of a list for :attr:`Finding.text`; :attr:`Finding.details` has all."""
    return first_names(names, most=2, remark=" (all in --json)")
