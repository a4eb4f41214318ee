"""nnU-Net's process variables, where the user has set none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_sfr import cores


@pytest.mark.parametrize(
    ("number", "workers", "processes"),
    [(1, "0", "1"), (2, "0", "2"), (4, "3", "4"), (12, "11", None), (64, None, None)],
)
def test_as_many_as_there_are_cores_for(
    number: int, workers: str | None, processes: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: number)
    environment: dict[str, str] = {}
    said = cores.choose_processes(environment)
    assert environment.get("nnUNet_n_proc_DA") == workers
    assert environment.get("nnUNet_def_n_proc") == processes
    assert (f"for {number} core" in said) == bool(environment)


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    environment = {"nnUNet_n_proc_DA": "5"}
    assert cores.choose_processes(environment).startswith("nnUNet_def_n_proc=2 for 2 cores")
    assert environment == {"nnUNet_n_proc_DA": "5", "nnUNet_def_n_proc": "2"}
    assert cores.choose_processes(environment) == ""


@pytest.mark.parametrize(("content", "most"), [("150000 100000\n", 2), ("50000 100000", 1), ("max 100000", 10**6)])
def test_the_quota_of_a_container(content: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert cores.available_cores() == min(16, most)
