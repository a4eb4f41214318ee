"""``sfr_run`` as a user meets it."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from nnunet_sfr.atomic import write_json
from nnunet_sfr.command_lines import shell_text
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.entry_points.run import main
from nnunet_sfr.interruption import InterruptedRunError
from nnunet_sfr.locking import Holder
from nnunet_sfr.pipeline import run_steps
from nnunet_sfr.pipeline.options import METHODS, RunOptions
from nnunet_sfr.pipeline.plan_step import Plan
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.state import RUNNING, RunState, StepRecord
from nnunet_sfr.planner_names import PLANS_OF_PLANNERS
from nnunet_sfr.planning.planners import find_planner
from nnunet_sfr.trainers import find_trainer
from tests.pipeline.fake_commands import FakeCommands, run_options
from tests.tiff_dataset import edit_dataset_json, turn_into_tiff
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import PLANS, nnunet_folders

Call = Callable[..., tuple[int, str, str]]
CASE = ("-d", "42", "-p", PLANS)


@pytest.fixture
def sfr_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call it in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sfr_run", *map(str, arguments)])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def fake(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    """Commands that write their results in no time, on a planned project."""
    shutil.rmtree(project.paths.preprocessed / "pseudo_labels")
    commands = FakeCommands(project, run_options())
    monkeypatch.setattr(run_steps, "run_steps", functools.partial(run_steps.run_steps, run=commands))
    return commands


def table(output: str) -> dict[str, list[str]]:
    """The status of every step, and the remark behind its time."""
    lines = output.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("step "))
    end = next(number for number, line in enumerate(lines) if line.startswith("together "))
    rows = [re.sub(r"\d+:\d\d:\d\d", "", line).split(maxsplit=2) for line in lines[begin + 1 : end]]
    return {name: rest for name, *rest in rows}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "2"], "--rounds goes with --plus only"),
        (["--confidence-of", "sam"], "--confidence-of goes with --plus only"),
        (["--threshold", "0.9"], "--threshold goes with --plus only"),
        (["--plus", "--rounds", "0"], "must be a whole number above 0, got '0'"),
        (["--plus", "--threshold", "1.5"], "must be a number from 0 to 1"),
        (["--plus", "--threshold", "0.9", "--quantile", "0.5"], "not allowed with"),
        (["--epochs", "0"], "must be a whole number above 0"),
        (["--method", "XX"], "invalid choice: 'XX'"),
        (["-i", "images"], "-i and -o go together"),
        (["-i", "images", "-o", "images/../images"], "-o must be another folder than -i"),
        (["-num_gpus", "2", "-device", "cpu"], "-num_gpus 2 does not go with -device cpu"),
        (["-overwrite_target_spacing", "1", "1", "0"], "must be a length in mm"),
        (["--status", "--print"], "not allowed with"),
    ],
)
def test_mistakes_in_the_call(
    arguments: list[str], said: str, sfr_run: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sfr_run("-d", "42", *arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_mistakes_that_only_a_look_at_the_data_shows(sfr_run: Call, fake: FakeCommands, tmp_path: Path) -> None:
    for arguments, said in (
        (["-d", "77"], "error: no data set 77"),
        (["-d", "heart"], "'heart' is neither a data set's number nor its name"),
        ([*CASE, "-i", "nowhere", "-o", "predictions"], "-i nowhere: no such folder"),
        (["-d", "42", "-pl", "SomePlanner"], "-pl SomePlanner: name its plans with -p, too"),
        ([*CASE, "-c", "3d_nope"], "-c 3d_nope: no such configuration; choose from 2d, 3d_fullres, 3d_lowres"),
        ([*CASE, "-c", "3d_cascade_fullres"], "-c 3d_cascade_fullres: is the second stage of a cascade"),
        ([*CASE, "-f", "9"], "fold 9 does not exist; use a number from 0 to 4, or all"),
        ([*CASE, "-f", "1"], "fold 1 cannot exist: 5-fold cross-validation needs 5 labelled cases and there are 3"),
        (["-d", "42", "-p", "New", "-c", "Fine"], "-c Fine: no such configuration"),
    ):
        before = sorted(tmp_path.rglob("*"))
        code, _, error = sfr_run(*arguments)
        assert code == 1
        assert said in error
        assert error.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before, "no folder for nonsense"
    assert fake.lines == []


def test_folds_of_the_users_own(sfr_run: Call, fake: FakeCommands) -> None:
    """Any number, of any number of labelled cases."""
    splits = [{"train": ["train_00"], "val": ["train_01"]}] * 7
    fake.dataset.paths.splits_file.write_text(json.dumps(splits))
    fake.project = Project(run_options(fold=6))
    code, _, error = sfr_run(*CASE, "-device", "cpu", "-f", "6")
    assert (code, error) == (0, "")
    code, _, error = sfr_run(*CASE, "-f", "7")
    assert code == 1
    assert "splits_final.json: has no fold 7; use 0 to 6, or all" in error


def test_folds_are_counted_by_label_maps_alone(sfr_run: Call, fake: FakeCommands) -> None:
    turn_into_tiff(fake.dataset.paths.raw)
    assert Project(run_options()).num_labelled() == 3
    code, _, error = sfr_run(*CASE, "-f", "0")
    assert (code, "needs 5 labelled cases and there are 3" in error) == (1, True)
    images = ["imagesTr/train_00_0000.tif"]
    edit_dataset_json(fake.dataset.paths.raw, dataset={"a": {"images": images, "label": "labelsTr/train_00.tif"}})
    assert Project(run_options()).num_labelled() == 1


def test_a_target_spacing_is_handed_on_to_the_last_digit(fake: FakeCommands) -> None:
    step = Plan(Project(run_options(target_spacing=(0.78125123, 2.0, 1.5))))
    assert shell_text(step.command).endswith("-overwrite_target_spacing 0.78125123 2 1.5")


def test_the_only_plan_and_configuration_need_no_name(sfr_run: Call, fake: FakeCommands) -> None:
    code, output, _ = sfr_run("-d", "42", "--print")
    assert code == 0
    assert "sfr_finetune -d 42 -c 3d_fullres -f all -p nnUNetPlansCPU" in output
    file = fake.dataset.paths.sfr_plans_file
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"] = {"2d": content["configurations"]["3d_fullres"]}
    file.write_text(json.dumps(content))
    assert "sfr_finetune -d 42 -c 2d -f all -p nnUNetPlansCPU" in sfr_run("-d", "42", "--print")[1]
    shutil.copy(file, file.with_name("Other_SFRPlans.json"))
    code, _, error = sfr_run("-d", "42", "--print")
    assert code == 1
    assert "has several plans; choose with -p from Other, nnUNetPlansCPU" in error


@pytest.mark.parametrize("tiff", [False, True], ids=["nifti", "tiff"])
@pytest.mark.parametrize(("slices", "configuration"), [(1, "2d"), (9, "3d_fullres")])
def test_images_of_one_slice_are_planned_in_2d(
    slices: int, configuration: str, tiff: bool, sfr_run: Call, tmp_path: Path
) -> None:
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", shape=(slices, 20, 20), labelled=1, unlabelled=1, test=0)
        if tiff:  # the file of the spacing, train_00.json, is the first by name
            turn_into_tiff(tmp_path / "nnUNet_raw" / NAME)
        code, output, _ = sfr_run("-d", "42", "--print")
    assert code == 0
    assert f"sfr_plan_and_preprocess -d 42 -c {configuration}\n" in output


def test_raw_data_that_are_gone_when_all_is_done(sfr_run: Call, fake: FakeCommands, tmp_path: Path) -> None:
    """Status, prediction and a later call need none; without a plan they are asked for."""
    assert sfr_run(*CASE, "-device", "cpu")[0] == 0
    fake.taken()
    shutil.move(fake.dataset.paths.raw, tmp_path / "elsewhere")
    code, output, _ = sfr_run(*CASE, "--status")
    assert code == 0
    assert "everything is done" in output
    images = tmp_path / "elsewhere" / "imagesTs"
    fake.project = Project(run_options(images=images, predictions=tmp_path / "predictions"))
    assert sfr_run(*CASE, "-device", "cpu", "-i", images, "-o", tmp_path / "predictions")[0] == 0
    assert fake.taken() == ["nnUNetv2_predict"]
    fake.dataset.paths.raw.mkdir()
    assert sfr_run(*CASE, "-device", "cpu")[0] == 0
    assert fake.taken() == [], "nor is an empty folder a change"
    shutil.rmtree(fake.dataset.paths.results)
    assert sfr_run(*CASE, "-device", "cpu", "--status")[0] == 0
    assert sfr_run(*CASE, "-device", "cpu")[0] == 0
    assert "sfr_plan_and_preprocess" not in fake.taken(), "what is preprocessed is taken as it is"
    code, _, error = sfr_run("-d", "42", "-pl", "ExperimentPlanner")
    assert code == 1
    assert "dataset.json: not found" in error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("patient.nii.gz", "patient.nii.gz: the name has no channel; rename the file to patient_0000.nii.gz"),
        ("patient_0007.nii.gz", "no file of case patient is of channel 0; if the number belongs to the name"),
        ("patient_0000.mha", "no file ends in .nii.gz; put the images there"),
    ],
)
def test_images_to_predict_that_nnunet_would_not_find(
    name: str, said: str, sfr_run: Call, fake: FakeCommands, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_text("")
    code, _, error = sfr_run(*CASE, "-i", tmp_path / "new", "-o", tmp_path / "predictions")
    assert code == 1
    assert said in error
    assert fake.lines == []


def test_print_shows_the_whole_run_and_runs_nothing(sfr_run: Call, fake: FakeCommands, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    code, output, _ = sfr_run(
        *("-d", "42", "-pl", "ExperimentPlannerCPU", "-overwrite_target_spacing", "2.5", "2", "2", "-sam", "vit_b"),
        *("-adaptation", "adapter", "-checkpoint", "my weights.pth"),
        *("--method", "ACMT", "--epochs", "3", "--plus", "--rounds", "2", "--confidence", "paper", "-f", "0"),
        *("-i", "my images", "-o", "predictions", "-num_gpus", "2", "-np", "3", "--print"),
    )
    assert code == 0
    case = "-d 42 -c 3d_fullres -f 0 -p nnUNetPlansCPU"
    train = "nnUNetv2_train 42 3d_fullres 0 -tr nnUNetTrainerSFR{} -p nnUNetPlansCPU -num_gpus 2"
    assert [line for line in output.splitlines() if not line.startswith("#")] == [
        "sfr_plan_and_preprocess -d 42 -c 3d_fullres -pl ExperimentPlannerCPU -overwrite_target_spacing 2.5 2 2 "
        "-sam vit_b -adaptation adapter -checkpoint 'my weights.pth' -np 3 -npfp 3",
        f"sfr_finetune {case}",
        f"sfr_pseudolabel {case}",
        train.format("_ACMT_3epochs"),
        f"sfr_pseudolabel {case} --round 1 -tr nnUNetTrainerSFR_ACMT_3epochs",
        f"sfr_select {case} --round 1 --confidence paper",
        f"sfr_finetune {case} --round 1",
        f"sfr_pseudolabel {case} --round 1",
        train.format("Plus_ACMT_3epochs"),
        f"sfr_pseudolabel {case} --round 2 -tr nnUNetTrainerSFRPlus_ACMT_3epochs",
        f"sfr_select {case} --round 2 --confidence paper",
        f"sfr_finetune {case} --round 2",
        f"sfr_pseudolabel {case} --round 2",
        train.format("Plus_ACMT_round2_3epochs"),
        "nnUNetv2_predict -i 'my images' -o predictions -d 42 -c 3d_fullres -f 0 "
        "-tr nnUNetTrainerSFRPlus_ACMT_round2_3epochs -p nnUNetPlansCPU -npp 3 -nps 3",
    ]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_status_from_the_first_step_to_the_last(sfr_run: Call, fake: FakeCommands) -> None:
    code, output, _ = sfr_run(*CASE, "--status")
    assert code == 0
    waiting = {name: ["waiting"] for name in ("fine-tune", "pseudo-label", "train", "validate")}
    assert table(output) == {"plan": ["next"], **waiting}

    fake.failing = {"nnUNetv2_train": 3}
    code, _, error = sfr_run(*CASE, "-device", "cpu")
    assert code == 3
    assert error.splitlines() == [
        f"error: step train failed (exit code 3); its log is {fake.project.options.paths.log('train')}"
    ]
    _, output, _ = sfr_run(*CASE, "--status")
    assert table(output) == {
        "plan": ["done"],
        "fine-tune": ["done"],
        "pseudo-label": ["done"],
        "train": ["next", "failed last time"],
        "validate": ["waiting"],
    }
    assert "next: train nnU-Net\n" in output
    assert "predict with" not in output

    fake.failing = {}
    assert sfr_run(*CASE, "-device", "cpu")[0] == 0
    _, output, _ = sfr_run(*CASE, "--status")
    assert set(map(tuple, table(output).values())) == {("done",)}
    assert "everything is done\n" in output
    assert f"model: {fake.project.training('nnUNetTrainerSFR_MT')} " in output
    predict = "nnUNetv2_predict -i IMAGES -o PREDICTIONS -d 42 -c 3d_fullres -f all -tr nnUNetTrainerSFR_MT -p"
    assert f"predict with: {predict} nnUNetPlansCPU -device cpu\n" in output, "the device that it was trained on"


def test_status_of_a_run_at_work(sfr_run: Call, fake: FakeCommands) -> None:
    seen = []

    def look(command: object, log: Path, lock: Path) -> int:
        seen.append(sfr_run(*CASE, "--status"))
        seen.append(sfr_run(*CASE))
        raise InterruptedRunError(2)

    with pytest.raises(InterruptedRunError):
        run_steps.run_steps.func(run_options(), "sfr_run -d 42", look)  # type: ignore[attr-defined]
    (_, output, _), (second_code, _, second_error) = seen
    assert table(output)["fine-tune"][0] == "running"
    assert f"on {socket.gethostname()}, process {os.getpid()}" in output
    assert second_code == 1
    assert "another sfr_run is at work on this data set" in second_error
    _, output, _ = sfr_run(*CASE, "--status")
    assert table(output)["fine-tune"][0] == "next"


def test_status_of_a_run_on_another_machine(sfr_run: Call, fake: FakeCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = fake.project.options.paths
    write_json(asdict(Holder("me", "elsewhere", 1, "2026-01-01", "sfr_run -d 42")), paths.lock_holder)
    record = StepRecord(Plan(fake.project).result_name, "", RUNNING, {}, "2026-01-01T00:00:00")
    RunState(paths.state).put("plan", record)

    def planning() -> str:
        return table(sfr_run(*CASE, "--status")[1])["plan"][0]

    paths.lock.unlink(missing_ok=True)
    assert planning() == "running", "without a lock nothing is known"
    assert not paths.lock.exists()
    with FileLock(paths.lock):
        assert planning() == "running"
        assert "at work: me on elsewhere, process 1" in sfr_run(*CASE, "--status")[1]
    paths.lock.touch()
    for refusal in (PermissionError, NotImplementedError):
        with monkeypatch.context() as patch:
            patch.setattr(FileLock, "acquire", mock.Mock(side_effect=refusal))
            assert planning() == "running", "its lock cannot be asked for"
    assert planning() == "next", "killed, which frees the lock"
    with FileLock(paths.lock).acquire(timeout=0):
        pass


def test_an_interruption_says_how_to_go_on(sfr_run: Call, fake: FakeCommands) -> None:
    fake.raising = {"sfr_finetune": InterruptedRunError(15)}
    code, _, error = sfr_run(*CASE, "-device", "cpu")
    assert code == 143
    assert error == "interrupted (SIGTERM); run the same command again to continue from here\n"


def test_a_damaged_state_is_named(sfr_run: Call, fake: FakeCommands) -> None:
    file = fake.project.options.paths.state
    file.parent.mkdir(parents=True)
    file.write_text('{"steps": []}')
    code, _, error = sfr_run(*CASE, "-device", "cpu")
    assert code == 1
    assert f"{file}: steps: expected an object, got a list; delete it, and sfr_run looks" in error


def test_automatic_device_is_told_to_nnunet_in_its_own_words(sfr_run: Call, fake: FakeCommands) -> None:
    assert sfr_run(*CASE)[0] == 0
    finetune, _, train = fake.lines
    assert "-device" not in finetune
    assert train.rpartition(" ")[2] in ("cpu", "cuda", "mps")
    assert train.split()[-2] == "-device"


# --- names that are written down twice, because importing their home takes ten seconds -------------------------------


@pytest.mark.parametrize("planner", PLANS_OF_PLANNERS)
def test_plans_have_the_names_that_their_planners_give_them(planner: str) -> None:
    default = inspect.signature(find_planner(planner).__init__).parameters["plans_name"].default
    assert default == PLANS_OF_PLANNERS[planner]


@pytest.mark.parametrize("method", METHODS)
def test_every_trainer_of_a_run_exists(method: str) -> None:
    options = RunOptions(dataset="42", dataset_name="Dataset042_Tiny", method=method, rounds=3, epochs=5)
    for round_index in range(4):
        assert find_trainer(options.trainer(round_index)) is not None


def test_nothing_heavy_is_imported_before_there_is_work(fake: FakeCommands) -> None:
    """Also for --status and --print."""
    code = (
        "import sys; from nnunet_sfr.entry_points.run import main; sys.argv = ['sfr_run', '-d', '42', sys.argv[1]]; "
        "main(); sys.exit(any(name in sys.modules for name in ('torch', 'nnunetv2', 'numpy')))"
    )
    for option in ("--status", "--print"):
        assert subprocess.run([sys.executable, "-c", code, option], check=False).returncode == 0


def test_the_state_is_for_people(sfr_run: Call, fake: FakeCommands) -> None:
    sfr_run(*CASE, "-device", "cpu")
    steps = json.loads(fake.project.options.paths.state.read_text(encoding="utf-8"))["steps"]
    train = steps["train"]
    assert train["command"] == "nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p nnUNetPlansCPU -device cpu"
    assert set(train["outputs"]) == {"student", "teacher"}
    assert {"pseudo-labels", "nnU-Net's plan", "retraining of the SFR plan", "fold"} <= set(train["inputs"])
    assert train["log"] == "logs/train.log"
