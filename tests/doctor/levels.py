"""What tests of the doctor ask of its findings."""

from __future__ import annotations

from collections.abc import Iterable

from nnunet_sfr.doctor.findings import Finding, Level


def levels(findings: Iterable[Finding]) -> list[str]:
    """The level of every finding, as the report marks it."""
    return [finding.level.value for finding in findings]


def only(findings: Iterable[Finding], level: str) -> Finding:
    """The one finding that is not ok, which must have this level."""
    (finding,) = [finding for finding in findings if finding.level is not Level.OK]
    assert finding.level.value == level
    return finding
