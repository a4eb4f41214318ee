"""nnU-Net's search, here and in new processes, with and without what leads it to our trainers."""

from __future__ import annotations

import os
import venv
from pathlib import Path

import pytest

from nnunet_sfr.doctor.trainers import REMEDY, check_new_processes, check_search, check_variable
from nnunet_sfr.environment import PLUGIN_FOLDER, TRAINER_PATH_VARIABLE
from tests.doctor.levels import levels, only


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variable as an installation sets it; returned for tests that set it otherwise."""
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    return monkeypatch


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """The Python of an environment in which nothing is installed."""
    folder = tmp_path / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def add_hook(python: Path, folder: str) -> None:
    """What a .pth file of an installation does when Python starts."""
    (packages,) = python.parent.parent.rglob("site-packages")
    (packages / "hook.pth").write_text(f"import os; os.environ[{TRAINER_PATH_VARIABLE!r}] = {folder!r}")


def test_variable(variable: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert levels(check_variable()) == ["ok"]
    variable.setenv(TRAINER_PATH_VARIABLE, f"{tmp_path}{os.pathsep}{PLUGIN_FOLDER}{os.sep}")
    assert levels(check_variable()) == ["ok"]
    variable.setenv(TRAINER_PATH_VARIABLE, f"{tmp_path / 'gone'}{os.pathsep}{PLUGIN_FOLDER}")
    assert str(tmp_path / "gone") in only(check_variable(), "note").text
    variable.setenv(TRAINER_PATH_VARIABLE, str(tmp_path))
    assert only(check_variable(), "problem").remedy == REMEDY
    variable.delenv(TRAINER_PATH_VARIABLE)
    assert only(check_variable(), "problem").text.startswith("is not set")


def test_nnunet_finds_every_trainer(variable: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("nnUNetTrainer_MT", "nnUNetTrainerSFR_MagicNet")
    (finding,) = check_search(names)
    assert (finding.level.value, finding.text.split(",")[0]) == ("ok", "nnU-Net finds all 2")
    assert capsys.readouterr().out == ""


def test_nnunet_does_not_find_the_trainers(variable: pytest.MonkeyPatch) -> None:
    variable.delenv(TRAINER_PATH_VARIABLE)
    finding = only(check_search(("nnUNetTrainer", "nnUNetTrainer_MT", "nnUNetTrainerSFR_MT")), "problem")
    assert finding.text.startswith("nnU-Net finds 1 of 3; not nnUNetTrainer_MT, nnUNetTrainerSFR_MT")
    assert finding.details == ("nnUNetTrainer_MT", "nnUNetTrainerSFR_MT")
    assert finding.remedy == f"export {TRAINER_PATH_VARIABLE}={PLUGIN_FOLDER}"


def test_a_broken_module_of_others_stands_in_the_way(variable: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "their_trainer.py").write_text("raise ImportError('their package is gone')")
    variable.setenv(TRAINER_PATH_VARIABLE, f"{tmp_path}{os.pathsep}{PLUGIN_FOLDER}")
    assert "their package is gone" in only(check_search(("nnUNetTrainer_MT",)), "problem").text
    (tmp_path / "their_trainer.py").write_text("raise NotImplementedError")
    assert "(NotImplementedError)" in only(check_search(("nnUNetTrainer_MT",)), "problem").text


def test_new_processes_of_an_installation(variable: pytest.MonkeyPatch, bare_python: Path) -> None:
    add_hook(bare_python, PLUGIN_FOLDER)
    variable.delenv(TRAINER_PATH_VARIABLE)
    assert levels(check_new_processes(str(bare_python))) == ["ok"]


def test_new_processes_know_the_trainers_by_the_variable_alone(variable: pytest.MonkeyPatch, bare_python: Path) -> None:
    assert "by your nnUNet_extTrainer alone" in only(check_new_processes(str(bare_python)), "note").text


def test_new_processes_know_nothing(variable: pytest.MonkeyPatch, bare_python: Path) -> None:
    variable.delenv(TRAINER_PATH_VARIABLE)
    assert only(check_new_processes(str(bare_python)), "problem").remedy == REMEDY


def test_new_processes_are_told_of_another_installation(
    variable: pytest.MonkeyPatch, bare_python: Path, tmp_path: Path
) -> None:
    add_hook(bare_python, str(tmp_path / "older"))
    assert str(tmp_path / "older") in only(check_new_processes(str(bare_python)), "note").text
