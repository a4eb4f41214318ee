"""One line for each finding, aligned and wrapped, and the same as JSON."""

from __future__ import annotations

import json

import pytest

from nnunet_sfr.doctor.findings import Section, note, ok, problem, section, some_names
from nnunet_sfr.doctor.printing import as_json, section_lines, summary
from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import gib, reason

SECTIONS = [
    Section("Folders", (ok("nnUNet_preprocessed", "/data"), note("device", "word " * 40, "buy one"))),
    Section("Data", (problem("same image", "a = b", "remove it", ["a = b", "c = d"]),)),
]


def test_lines_are_aligned_and_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    blank, title, first, second, *rest = section_lines(SECTIONS[0])
    assert (blank, title) == ("", "Folders")
    assert first == "  ok       nnUNet_preprocessed  /data"
    column = first.index("/data")
    assert second[:column] == "  note     device               "
    assert all(line[:column].strip() == "" for line in rest)
    assert rest[-1] == " " * column + "-> buy one"
    assert max(map(len, (first, second, *rest))) <= 90


def test_paths_are_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/a-very/" + "long-path/" * 20
    assert any(path in line for line in section_lines(Section("Folders", (ok("raw", path),))))


def test_summary_counts_problems_and_notes() -> None:
    assert summary(SECTIONS) == "1 problem, 1 note"
    assert summary(SECTIONS[:1] * 2) == "no problems, 2 notes"


def test_json_has_the_details() -> None:
    content = json.loads(as_json(SECTIONS, ("sfr_doctor",)))
    assert content["problems"] == 1
    assert content["findings"][2] == {
        "section": "Data",
        "level": "problem",
        "subject": "same image",
        "text": "a = b",
        "remedy": "remove it",
        "details": ["a = b", "c = d"],
    }


def test_a_users_mistake_ends_one_check_and_not_the_others() -> None:
    def fails() -> list[object]:
        raise UserError("plan.json: is damaged; delete it")

    found = section("Plan", [("plan", fails), ("next", lambda: [ok("next", "fine")])])  # type: ignore[list-item]
    assert found.findings == (problem("plan", "plan.json: is damaged; delete it"), ok("next", "fine"))


def test_wording() -> None:
    assert some_names(["a", "b"]) == "a, b"
    assert some_names(["a", "b", "c", "d"]) == "a, b and 2 more (all in --json)"
    assert (gib(2**29), gib(24 * 2**30)) == ("0.50 GiB", "24.0 GiB")
    assert reason(ValueError("two\n lines")) == "two lines"
    assert reason(ValueError("x" * 300)) == "x" * 200
    assert reason(NotImplementedError()) == "NotImplementedError"
