"""The bad inputs of the table that read little; the others differ in the content of the file, not in its reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_inputs import GROUPS, BadInput, copied, run
from tests.tiny_project import nnunet_folders


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bad_inputs") / "project"
    with nnunet_folders(folder):
        yield folder


ROWS = [row for group in ("calls", "names", "values") for row in GROUPS[group]()]
ROWS += [row for row in GROUPS["JSON"]() if row.what.endswith(": a list")]
ROWS += [row for row in GROUPS["files"]() if row.what.endswith(": a pickle")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.command}: {row.what}")
def test_bad_input(row: BadInput, root: Path, planned_root: Path) -> None:
    """One line that names what is wrong, a non-zero exit code, and nothing written."""
    copied(planned_root, root)
    outcome = run(row, root)
    assert outcome.problem == "", outcome.lines
