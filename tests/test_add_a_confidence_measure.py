"""docs/add-a-confidence-measure.md: every block is put where it says and run, and there is no other place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from docs import settings_page
from nnunet_sfr import confidence, confidence_measures
from nnunet_sfr.confidence import ENTRIES, no_confidence
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.entry_points import run, select
from nnunet_sfr.settings import PseudoWeightingSettings, RoundSettings

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "add-a-confidence-measure.md"
MEASURE = "foreground_margin"


def blocks(marker: str) -> list[str]:
    """The Python blocks of the page below a marker such as ``into <file>``."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"<!-- {re.escape(marker)} -->\n```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's measure as if it were in the package; gives its name."""
    function, entry = blocks("into nnunet_sfr/confidence.py")
    namespace = dict(vars(confidence))
    exec(function, namespace)
    for name, value in eval(f"{{{entry.strip()}}}", namespace).items():
        monkeypatch.setitem(ENTRIES, name, value)
    (line,) = blocks("into nnunet_sfr/confidence_measures.py")
    for name, value in eval(f"{{{line.strip()}}}", dict(vars(confidence_measures))).items():
        monkeypatch.setitem(MEASURES, name, value)
    assert MEASURE in MEASURES
    return MEASURE


def test_every_python_block_has_a_place() -> None:
    markers = re.findall(r"(<!-- .*? -->\n)?```python\n", PAGE.read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"<!-- (into \S+|run) -->\n", marker) for marker in markers)
    assert len(markers) == 2 + 1 + 1


@pytest.mark.usefixtures("measure")
def test_the_code_that_the_page_ends_with_runs() -> None:
    [code] = blocks("run")
    exec(code, {})


def test_settings_commands_and_pages_know_the_measure(measure: str) -> None:
    assert RoundSettings(confidence=measure).confidence == measure
    assert PseudoWeightingSettings(case_measure=measure).case_measure == measure
    for command in (select, run):
        parsed = command._parser().parse_args(["-d", "42", "--confidence", measure])
        assert parsed.confidence == measure
    assert f"| `{measure}` | {MEASURES[measure].meaning} | `{measure}` |" in settings_page.render()
    assert no_confidence(torch.tensor([[[0, 1]]]), num_classes=2)[measure] is None
    assert MEASURES[measure].value({}) is None, "a record of an earlier version"


def test_no_other_file_lists_measures() -> None:
    """A file may name one that it is about, as a default; more than three would be a list of its own."""
    tables = {"confidence.py", "confidence_measures.py"}
    for folder in ("nnunet_sfr", "entry_points", "benchmarks"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & set(MEASURES)
            assert len(named) <= 3 or file.name in tables, f"{file} names {named}"
