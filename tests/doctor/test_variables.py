"""nnU-Net's folders and variables, in every state that they can be in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_sfr.doctor.findings import Finding
from nnunet_sfr.doctor.variables import NUMBERS, OTHER_VARIABLES, check_folders, check_variables
from tests.doctor.levels import levels, only
from tests.tiny_project import nnunet_folders

GIB = 2**30


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 * GIB))
    with nnunet_folders(tmp_path):
        yield


def finding_of(variable: str) -> Finding:
    (finding,) = [finding for finding in check_folders() if finding.subject == variable]
    return finding


def test_folders_that_are_as_they_should_be(tmp_path: Path) -> None:
    assert levels(check_folders()) == ["ok", "ok", "ok"]
    assert finding_of("nnUNet_results").text == f"{tmp_path / 'nnUNet_results'}, 100.0 GiB free"


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_a_variable_that_is_not_set(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    finding = only(check_folders(), "problem")
    assert (finding.subject, finding.remedy) == (variable, f"export {variable}=<folder>")


def test_missing_folders(tmp_path: Path) -> None:
    for name in ("nnUNet_raw", "nnUNet_results"):
        (tmp_path / name).rmdir()
    assert finding_of("nnUNet_raw").level.value == "problem"
    results = finding_of("nnUNet_results")
    assert results.level.value == "note", "runs make the folders that they write to"
    assert "typing mistake" in results.remedy


def test_a_missing_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nnUNet_results").rmdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode & os.W_OK))
    assert "may not be written to" in only(check_folders(), "problem").text


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "nnUNet_preprocessed").rmdir()
    (tmp_path / "nnUNet_preprocessed").write_text("")
    assert only(check_folders(), "problem").text.endswith("nnUNet_preprocessed: is a file")


def test_raw_data_need_not_be_writable_but_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert levels(check_folders()) == ["ok", "problem", "problem"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not be read" in finding_of("nnUNet_raw").text


def test_little_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * GIB))
    assert levels(check_folders()) == ["ok", "note", "note"]
    assert "3.00 GiB free" in finding_of("nnUNet_results").text


def test_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NUMBERS, *OTHER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    (finding,) = check_variables()
    assert finding.text.startswith("none")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_compile", "f")
    (finding,) = check_variables()
    assert (finding.level.value, finding.text) == ("ok", "nnUNet_n_proc_DA=0, nnUNet_compile=f")


@pytest.mark.parametrize("value", ["", "four", "2.5", "-1"])
def test_a_number_of_processes_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", value)
    assert repr(value) in only(check_variables(), "problem").text
