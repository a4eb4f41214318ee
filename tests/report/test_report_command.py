"""``sfr_report`` as a user meets it."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.entry_points import report
from tests.report.reported_project import CUBOID, FIRST, SECOND, SHIFTED, fill_model, fill_sam
from tests.tiny_project import PLANS

Run = Callable[..., int]
ARGUMENTS = ("-d", "42", "-p", PLANS, "-np", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["sfr_report", *map(str, arguments)])
        code: int = report.main()
        return code

    return call


@pytest.fixture
def labelled(project: SFRDataset) -> SFRDataset:
    store = project.paths.pseudo_labels("all")
    for file in store.iterdir():
        file.unlink()
    fill_sam(project, {FIRST: CUBOID, SECOND: CUBOID})
    fill_model(project, {FIRST: SHIFTED, SECOND: CUBOID})
    return project


def test_page_list_and_pictures(run: Run, labelled: SFRDataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ARGUMENTS) == 0
    folder = labelled.paths.report("all")
    said = capsys.readouterr().out
    assert f"the report is {folder / 'index.html'}" in said
    assert "not shown: " in said
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert FIRST in page
    with (folder / "annotate_next.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [FIRST, SECOND]
    assert rows[0]["images"] == str(labelled.paths.raw_unlabelled / f"{FIRST}_0000.nii.gz")
    assert len(list((folder / "pictures").glob("*.webp"))) == 2 * (
        3 + 2
    )  # planes in grey and two labels, mosaic and labels
    assert run(*ARGUMENTS, "--single-file", "--annotate", "1", "-o", folder) == 0
    assert len((folder / "annotate_next.csv").read_text(encoding="utf-8").splitlines()) == 2
    assert len((folder / "index.html").read_text(encoding="utf-8")) > len(page)


def assert_one_line(capsys: pytest.CaptureFixture[str], said: str) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_mistakes(run: Run, labelled: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("mine")
    assert run(*ARGUMENTS, "-o", theirs) == 1
    assert_one_line(capsys, "is neither empty nor a report; choose another folder with -o")
    assert run(*ARGUMENTS, "-o", theirs / "index.html") == 1
    assert_one_line(capsys, "one of the folders of this path is a file")
    assert (theirs / "index.html").read_text(encoding="utf-8") == "mine"
    assert run(*ARGUMENTS, "-tr", "NoTrainer") == 1
    assert_one_line(capsys, "choose -tr among none")
    assert run(*ARGUMENTS, "-f", "3") == 1
    assert_one_line(capsys, "there are no pseudo-labels to report on; run sfr_pseudolabel -d 42 -c 3d_fullres")
    assert not labelled.paths.report("all").exists()


def test_a_window_is_for_ct(run: Run, labelled: SFRDataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ARGUMENTS, "--window", "-160", "240") == 1
    assert_one_line(capsys, "the first channel of this data set is not normalised as CT: leave it out")
    assert not labelled.paths.report("all").exists()
    for text in ("nan", "a"):
        with pytest.raises(SystemExit):
            run(*ARGUMENTS, "--window", "-160", text)
        assert f"must be a finite number, got '{text}'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-np", "--max-pictures", "--annotate"])
def test_numbers_start_at_one(option: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("-d", "42", option, "0")
    assert ended.value.code == 2
    assert "must be a whole number above 0, got '0'" in capsys.readouterr().err
