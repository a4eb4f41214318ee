"""``sfr_doctor`` as a user meets it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nnunet_sfr.command_lines import shell_text
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor import examination, trainers
from nnunet_sfr.doctor.findings import Section, problem
from nnunet_sfr.doctor.next_step import next_step
from nnunet_sfr.doctor.subject import NamedDataset
from nnunet_sfr.entry_points import doctor
from nnunet_sfr.environment import PLUGIN_FOLDER, TRAINER_PATH_VARIABLE
from nnunet_sfr.paths import FINAL_ADAPTER
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS

Run = Callable[..., tuple[int, str, str]]
ON_PROJECT = ("-d", "42", "-p", PLANS)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command in this process, on a machine whose installation is sound: exit code, stdout, stderr."""
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    monkeypatch.setattr(trainers, "_variable_of_child", lambda python, *, inherit: PLUGIN_FOLDER)
    # one trainer says as much as all of them, in a tenth of the time
    monkeypatch.setattr(trainers, "check_search", partial(trainers.check_search, ("nnUNetTrainer_MT",)))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**40))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sfr_doctor", *arguments])
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
        code = doctor.main()
        assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before, "the doctor writes nothing"
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def found(report: str, level: str) -> list[dict[str, Any]]:
    return [finding for finding in json.loads(report)["findings"] if finding["level"] == level]


def test_help_does_not_ask_for_a_data_set(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("-h")
    assert ended.value.code == 0
    assert "[-d ID]" in capsys.readouterr().out


def test_a_sound_project(run: Run, project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    code, report, _ = run(*ON_PROJECT)
    assert code == 0
    lines = report.splitlines()
    assert 30 < len(lines) <= 60, "one screen"
    assert lines[-2].startswith("no problems, ")
    assert lines[-2].endswith("; next: train")
    device = "" if torch.cuda.is_available() else " -device cpu"
    assert lines[-1] == f"nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p {PLANS}{device}"
    titles = [line for before, line in itertools.pairwise(lines) if before == ""]
    assert titles[:-1] == [
        "Installation",
        "Folders",
        "Trainers",
        "Device",
        f"Raw data of {NAME}",
        f"Plan {PLANS}, 3d_fullres",
        "SAM",
        "Memory of one step on " + ("cuda" if torch.cuda.is_available() else "cpu"),
        "Stages of fold all",
    ]


def test_without_a_data_set(run: Run, project: SFRDataset) -> None:
    code, report, _ = run("--json")
    assert code == 0
    sections = {finding["section"] for finding in json.loads(report)["findings"]}
    assert sections == {"Installation", "Folders", "Trainers", "Device"}


def test_a_device_is_looked_for_without_a_data_set(run: Run, project: SFRDataset) -> None:
    missing = "mps" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cuda"
    code, report, _ = run("--json", "-device", missing)
    assert code == 1
    assert f"-device {missing}: torch finds no such device" in found(report, "problem")[0]["text"]


@pytest.mark.parametrize("options", [("-p", PLANS), ("-c", "2d"), ("-f", "0")])
def test_options_of_a_data_set_go_with_one(
    run: Run, project: SFRDataset, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*options)
    assert ended.value.code == 2
    assert f"{options[0]} goes with -d only" in capsys.readouterr().err


def test_a_test_image_among_the_unlabelled_ones(run: Run, project: SFRDataset) -> None:
    shutil.copy(
        project.paths.raw / "imagesTs" / "test_00_0000.nii.gz", project.paths.raw_unlabelled / "new_0000.nii.gz"
    )
    code, report, _ = run(*ON_PROJECT, "--json")
    assert code == 1
    leak, stale = found(report, "problem")
    assert (leak["subject"], leak["details"]) == (
        "same image",
        ["imagesUl/new_0000.nii.gz = imagesTs/test_00_0000.nii.gz"],
    )
    assert stale["text"] == "made from other raw files than those that are there now"


def test_an_unknown_data_set_is_one_line(run: Run, project: SFRDataset) -> None:
    code, report, errors = run("-d", "77")
    assert (code, report) == (1, "")
    assert errors.startswith("error: no data set 77")
    assert errors.count("\n") == 1


def test_before_planning(run: Run, project: SFRDataset) -> None:
    shutil.rmtree(project.paths.preprocessed)
    code, report, _ = run("-d", "42", "--json")
    assert code == 0
    (plan,) = [finding for finding in found(report, "note") if finding["subject"] == "plan"]
    assert plan["remedy"] == "sfr_plan_and_preprocess -d 42"
    assert json.loads(report)["findings"][-1] == plan
    assert "3 labelled, 2 unlabelled, 1 test" in report


def test_another_plan_than_there_is(run: Run, project: SFRDataset) -> None:
    code, report, _ = run("-d", "42", "-p", "Fine", "--json")
    assert code == 1
    (plan,) = found(report, "problem")
    assert plan["text"].endswith(f"this data set has {PLANS}: choose with -p")
    assert json.loads(report)["next"] == "sfr_doctor -d 42 -p Fine"


def test_the_only_plan_needs_no_name(run: Run, project: SFRDataset) -> None:
    code, report, _ = run("-d", "42", "-device", "cpu", "--json")
    assert code == 0
    assert f"Plan {PLANS}, 3d_fullres" in report


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_a_problem_of_the_report(
    device: str, run: Run, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    code, report, _ = run(*ON_PROJECT, "-device", device, "--json")
    assert code == 1
    (finding,) = found(report, "problem")
    assert (finding["section"], finding["subject"]) == ("Device", "device")
    assert finding["text"] == f"-device {device}: torch finds no such device on this machine; use -device cpu"
    assert json.loads(report)["findings"][-1]["section"] == "Stages of fold all"


def next_of(subject: NamedDataset) -> str:
    return shell_text(next_step(subject, [], subject.device)[1])


def test_every_stage_has_its_command(project: SFRDataset) -> None:
    """After each stage, the last line is the next command, with the options that were given."""
    subject = NamedDataset("42", None, None, "all", "cpu")
    case = f"-d 42 -c 3d_fullres -f all -p {PLANS}"
    assert next_of(subject) == f"nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p {PLANS} -device cpu"
    of_nnunet = project.paths.training("nnUNetTrainer", "all")
    of_nnunet.mkdir(parents=True)
    for name in ("checkpoint_latest.pth", "checkpoint_final.pth"):
        (of_nnunet / name).touch()
        assert next_of(subject) == f"nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p {PLANS} -device cpu"
    training = project.paths.training("nnUNetTrainerSFR_ACMT", "all")
    training.mkdir(parents=True)
    (training / "checkpoint_latest.pth").touch()
    assert next_of(subject) == (
        f"nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_ACMT -p {PLANS} -device cpu --c"
    )
    (training / "checkpoint_final.pth").touch()
    assert next_of(subject) == f"sfr_report {case}"
    shutil.rmtree(project.paths.pseudo_labels("all"))  # without which there is nothing to report
    assert next_of(subject) == f"sfr_finetune {case} -device cpu"
    shutil.rmtree(training)
    assert next_of(subject) == f"sfr_finetune {case} -device cpu"
    adapter = project.paths.sam_stage("all") / FINAL_ADAPTER
    adapter.parent.mkdir(parents=True)
    adapter.touch()
    assert next_of(subject) == f"sfr_pseudolabel {case} -device cpu"
    shutil.rmtree(project.paths.unlabelled)
    assert next_of(subject) == "sfr_plan_and_preprocess -d 42 -c 3d_fullres -pl ExperimentPlannerCPU"
    shutil.rmtree(project.paths.preprocessed)
    assert next_of(subject) == "sfr_plan_and_preprocess -d 42 -pl ExperimentPlannerCPU"
    assert next_of(replace(subject, plans_name="Fine", configuration="2d", fold=0)) == (
        "sfr_plan_and_preprocess -d 42 -c 2d -p Fine"
    )
    assert next_of(replace(subject, plans_name=PLANS)) == (
        f"sfr_plan_and_preprocess -d 42 -pl ExperimentPlannerCPU -p {PLANS}"
    )
    assert next_of(replace(subject, plans_name="nnUNetPlans")) == "sfr_plan_and_preprocess -d 42 -p nnUNetPlans"
    assert shell_text(next_step(None, [], "auto")[1]) == f"sfr_doctor -d {NAME}"
    assert shell_text(next_step(None, [], "cpu")[1]) == f"sfr_doctor -d {NAME} -device cpu"
    shutil.rmtree(project.paths.raw)
    assert shell_text(next_step(None, [], "auto")[1]) == "sfr_convert -h"
    broken = Section("Folders", (problem("folders", "is a file"),))
    assert shell_text(next_step(replace(subject, fold=3), [broken], "cpu")[1]) == "sfr_doctor -d 42 -f 3 -device cpu"
    assert shell_text(next_step(None, [broken], "mps")[1]) == "sfr_doctor -device mps", "or it would find nothing"


def test_a_mistake_in_the_sfr_plan_is_said_once(run: Run, project: SFRDataset) -> None:
    file = project.paths.sfr_plans_file
    file.write_text(file.read_text(encoding="utf-8").replace('"batch_size": 2', '"batch_size": 0'))
    code, report, _ = run(*ON_PROJECT, "--json")
    assert code == 1
    (plan,) = found(report, "problem")
    assert "batch_size must be at least 1" in plan["text"]


def test_a_fold_that_cannot_exist(run: Run, project: SFRDataset) -> None:
    code, report, _ = run(*ON_PROJECT, "-f", "1", "--json")
    assert code == 1
    assert "needs 5 labelled cases and there are 3" in found(report, "problem")[0]["text"]


def test_no_raw_data_on_this_machine(run: Run, project: SFRDataset) -> None:
    shutil.rmtree(project.paths.raw)
    code, report, _ = run(*ON_PROJECT, "--json")
    assert code == 0
    (cases,) = [finding for finding in found(report, "note") if finding["subject"] == "cases"]
    assert "not in nnUNet_raw on this machine" in cases["text"]


def test_raw_data_without_a_description(run: Run, project: SFRDataset) -> None:
    (project.paths.raw / "dataset.json").unlink()
    code, report, _ = run(*ON_PROJECT, "--json")
    assert code == 1
    assert "dataset.json: not found" in found(report, "problem")[0]["text"]


def test_a_broken_installation_ends_the_examination(
    run: Run, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "check_packages", lambda: [problem("packages", "peft is missing", "install it")])
    code, report, _ = run(*ON_PROJECT, "--json")
    assert code == 1
    assert [finding["text"] for finding in found(report, "problem")] == ["peft is missing"]
    assert json.loads(report)["findings"][-1]["text"] == "is not looked at"
