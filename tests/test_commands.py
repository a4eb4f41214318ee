"""The commands as a user meets them: help, the path in order, and one line for every mistake."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.data import export
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_ADAPTER, nnunet_root
from tests.conftest import REPOSITORY
from tests.tiny_dataset import NAME
from tests.tiny_model import random_model
from tests.tiny_project import PLANS, change_settings, with_two_channels

COMMANDS = (
    "plan_and_preprocess",
    "finetune",
    "pseudolabel",
    "crosscheck",
    "select",
    "run",
    "doctor",
    "report",
    "review",
    "export",
    "evaluate",
    "convert",
    "add_labels",
    "adapt_weights",
)

CPU = ("-device", "cpu")
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call a command in this process: (exit code, what it said on stderr)."""

    def call(command: str, *arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"sfr_{command}", *map(str, arguments)])
        code = import_module(f"nnunet_sfr.entry_points.{command}").main()
        return code, capsys.readouterr().err

    return call


def files_below(folder: Path) -> dict[str, int]:
    """Times of all files but that of kept hashes, which a refused command may add to."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "sfr_raw_files.json"]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def assert_refused(run: Run, root: Path, said: str, command: str, *arguments: str | Path) -> None:
    """The command ends with code 1 and one line that has ``said``, and no file below ``root`` is touched."""
    before = files_below(root)
    code, stderr = run(command, *arguments)
    assert code == 1
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in stderr
    assert files_below(root) == before


@pytest.fixture
def helped(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """What a command prints for ``-h``, in wide lines."""

    def call(command: str) -> str:
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit) as ended:
            run(command, "-h")
        assert ended.value.code == 0
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_and_its_default(command: str, helped: Callable[[str], str]) -> None:
    options = re.findall(r"^  (-\S.*?)(?:  +(\S.*)|\n {10,}(\S.*))?$", helped(command), flags=re.MULTILINE)
    assert len(options) > 3
    for option, beside, below in options:
        explained = beside or below
        assert explained, option
        takes_a_value = " " in option.partition(",")[0]
        if takes_a_value and "needed" not in explained:
            assert explained.count("default") == 1 or option.split()[0] in NO_DEFAULT[command], f"{option}: {explained}"


NO_DEFAULT: dict[str, tuple[str, ...]] = {command: ("-d",) for command in COMMANDS} | {
    "add_labels": ("-d", "-i"),
    "adapt_weights": ("-d", "-i", "-o"),
    "doctor": ("-d",),
    "evaluate": ("-d", "--compare"),
    "export": ("-d", "-o"),
    "pseudolabel": ("-d", "--from-model", "--from-images", "-tr", "--export"),
    "run": ("-d", "-o", "--threshold"),
    "select": ("-d", "--threshold"),
}
"""Options that have to be given, and those that do something only where they are."""


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_the_help_can_be_typed(
    command: str, helped: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [line for line in helped(command).splitlines() if line.startswith(f"  sfr_{command} ")]
    assert examples
    monkeypatch.setattr(import_module(f"nnunet_sfr.entry_points.{command}"), "run", lambda *_, **__: 0)
    for example in examples:
        assert run(command, *shlex.split(example, comments=True)[1:])[0] == 0


@pytest.mark.parametrize("command", ["finetune", "pseudolabel"])
def test_mistakes_in_the_call(command: str, run: Run, project: SFRDataset, tmp_path: Path) -> None:
    arguments = ("-p", PLANS, "-device", "cpu")
    assert_refused(run, tmp_path, "no data set 77", command, "-d", "77", *arguments)
    assert_refused(run, tmp_path, "is neither a data set's number nor its name", command, "-d", "heart", *arguments)
    assert_refused(run, tmp_path, "has no configuration 2d_lowres", command, "-d", "42", "-c", "2d_lowres", *arguments)
    said = "Fine.json: not found; this data set has nnUNetPlansCPU: choose with -p"
    assert_refused(run, tmp_path, said, command, "-d", NAME, "-p", "Fine")
    if not torch.cuda.is_available():
        assert_refused(
            run,
            tmp_path,
            "-device cuda: torch finds no such device",
            command,
            "-d",
            "42",
            "-p",
            PLANS,
            "-device",
            "cuda",
        )


def test_adapted_weights_need_a_place(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    """It is looked for before the checkpoint is read."""
    (tmp_path / "file").touch()
    arguments = ("-d", "42", "-i", tmp_path / "openmind.pth", "-o", tmp_path / "file" / "start.pth")
    assert_refused(run, tmp_path, "one of the folders of this path is a file", "adapt_weights", *arguments)


def test_steps_out_of_order(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    arguments = ("-d", "42", "-p", PLANS)
    assert_refused(
        run, tmp_path, "adapter_final.safetensors: not found; run sfr_finetune first", "pseudolabel", *arguments
    )
    assert_refused(
        run,
        tmp_path,
        "no such model; choose with -tr, -p and -c among none",
        "export",
        *arguments,
        "-o",
        tmp_path / "model.zip",
    )
    shutil.rmtree(project.paths.unlabelled)
    assert_refused(
        run, tmp_path, "no preprocessed unlabelled cases; run sfr_plan_and_preprocess", "pseudolabel", *arguments
    )
    shutil.rmtree(project.paths.labelled)
    assert_refused(run, tmp_path, "no preprocessed labelled cases; run sfr_plan_and_preprocess", "finetune", *arguments)


def test_a_fold_that_cannot_exist(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    assert_refused(
        run, tmp_path, "fold 1 cannot exist: 5-fold cross-validation", "finetune", "-d", "42", "-p", PLANS, "-f", "1"
    )


def test_no_unlabelled_images(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    planning = ("plan_and_preprocess", "-d", "42", "-pl", "ExperimentPlannerCPU", "-np", "1", "-npfp", "1")
    for image in project.paths.raw_unlabelled.iterdir():
        image.unlink()
    assert_refused(run, tmp_path, "imagesUl", *planning)
    project.paths.raw_unlabelled.rmdir()
    assert_refused(run, tmp_path, "imagesUl", *planning)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"this is no checkpoint", "sam.pth"),
        (None, "not found"),
    ],
)
def test_bad_sam_checkpoints(content: bytes | None, said: str, run: Run, project: SFRDataset, tmp_path: Path) -> None:
    checkpoint = tmp_path / "sam.pth"
    if content is not None:
        checkpoint.write_bytes(content)
    change_settings(project, {"sam": {"model": "vit_b", "adaptation": "lora", "checkpoint": str(checkpoint)}})
    assert_refused(run, tmp_path, said, "finetune", "-d", "42", "-p", PLANS, "-device", "cpu")


@pytest.mark.parametrize(("adaptation", "slow"), [("lora", True), ("few_shot", False)])
def test_a_sam_for_a_gpu_is_said_to_be_slow_on_a_cpu(
    adaptation: str, slow: bool, run: Run, project: SFRDataset, tmp_path: Path
) -> None:
    missing = {"checkpoint": str(tmp_path / "missing.pth"), "adaptation_settings": {}}
    change_settings(project, {"sam": {"model": "lite_medsam", "adaptation": adaptation, **missing}})
    _, stderr = run("finetune", "-d", "42", "-p", PLANS, "-device", "cpu")
    said = "lite_medsam with lora is slow on a CPU; planned with -adaptation few_shot it takes minutes"
    assert stderr.splitlines()[:-1] == ([said] if slow else [])
    complete = project.paths.sam_stage("all") / FINAL_ADAPTER
    complete.parent.mkdir(parents=True, exist_ok=True)
    complete.write_bytes(b"")
    _, stderr = run("finetune", "-d", "42", "-p", PLANS, "-device", "cpu")
    assert said not in stderr, "nothing is left to learn"
    _, stderr = run("finetune", "-d", "42", "-p", PLANS, "-device", "cpu", "--overwrite")
    assert (said in stderr) == slow


@pytest.mark.parametrize(
    ("model", "adaptation", "said"),
    [
        ("lite_medsam", "few_shot", ": "),
        ("lite_medsam", "adapter", ": "),
        ("vit_b", "lora", "; planned with -sam lite_medsam -adaptation few_shot it is faster, but "),
    ],
)
def test_with_two_channels_no_minutes_are_promised(
    model: str, adaptation: str, said: str, run: Run, project: SFRDataset, tmp_path: Path
) -> None:
    missing = {"checkpoint": str(tmp_path / "missing.pth"), "adaptation_settings": {}}
    change_settings(with_two_channels(project), {"sam": {"model": model, "adaptation": adaptation, **missing}})
    _, stderr = run("finetune", "-d", "42", "-p", PLANS, "-device", "cpu")
    assert stderr.splitlines()[:-1] == [
        f"{model} with {adaptation} is slow on a CPU{said}with 2 channels the encoder learns too, which takes hours"
    ]


def test_an_image_of_another_channel_count(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    dataset_json = project.paths.raw / "dataset.json"
    content = json.loads(dataset_json.read_text(encoding="utf-8"))
    content["channel_names"]["1"] = "T2"
    dataset_json.write_text(json.dumps(content))
    planning = ("plan_and_preprocess", "-d", "42", "-pl", "ExperimentPlannerCPU", "-np", "1", "-npfp", "1")
    assert_refused(run, tmp_path, "1 channels where dataset.json names 2", *planning)


def test_the_path_in_order(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    shutil.rmtree(project.paths.pseudo_labels("all"))
    arguments = ("-d", "42", "-p", PLANS, "-device", "cpu")
    assert run("finetune", *arguments)[0] == 0
    assert run("pseudolabel", *arguments, "--export", tmp_path / "labels")[0] == 0
    assert sorted(file.name for file in (tmp_path / "labels").iterdir()) == [
        "unlabelled_00.nii.gz",
        "unlabelled_01.nii.gz",
    ]
    # settings that change what the labels are made of: refused until told to replace them
    change_settings(project, {"pseudo_labels": {"tile_step_size": 0.7}})
    assert_refused(run, tmp_path, "made with another pseudo_labels; add --overwrite", "pseudolabel", *arguments)
    assert run("pseudolabel", *arguments, "--overwrite")[0] == 0


def test_every_source_of_pseudo_labels(run: Run, project: SFRDataset, tmp_path: Path) -> None:
    """The store of the project is a threshold's; a model takes its place, then the label maps that it exported."""
    model = random_model(project)
    arguments = ("-d", "42", "-p", PLANS)
    from_model = ("pseudolabel", *arguments, "-device", "cpu", "--from-model", model)
    assert_refused(run, tmp_path, "holds pseudo-labels made with another source; add --overwrite", *from_model)
    assert run(*from_model, "--overwrite", "--export", tmp_path / "maps")[0] == 0
    store = project.paths.pseudo_labels("all")
    labels = PseudoLabelStore.open(store, grid=project.grid).read_labels("unlabelled_01")
    assert json.loads((store / "manifest.json").read_text(encoding="utf-8"))["made_by"]["source"] == "model"
    written = (store / "unlabelled_01.b2nd").stat().st_mtime_ns
    assert run(*from_model, "--model-folds", "all", "--model-checkpoint", "checkpoint_final.pth")[0] == 0
    assert (store / "unlabelled_01.b2nd").stat().st_mtime_ns == written

    from_images = ("pseudolabel", *arguments, "--from-images", tmp_path / "maps")
    assert_refused(run, tmp_path, "made with another source", *from_images)
    assert run(*from_images, "--overwrite", "--export", tmp_path / "again")[0] == 0
    again = PseudoLabelStore.open(store, grid=project.grid)
    assert again.made_by.source == "images"
    np.testing.assert_array_equal(again.read_labels("unlabelled_01"), labels)
    (tmp_path / "maps" / "unlabelled_00.nii.gz").unlink()
    assert_refused(run, tmp_path, "unlabelled_00.nii.gz: not found (1 of 2 label maps are missing)", *from_images)
    assert_refused(run, tmp_path, "dataset.json: not found", *from_model[:-1], tmp_path / "maps")


def test_results_are_read_where_the_raw_data_are_gone(
    run: Run, project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report and the export of a model, on a machine that has no raw data and no variable for them."""
    shutil.copy(project.paths.fingerprint_file, random_model(project))
    shutil.rmtree(project.paths.raw)
    for unset in (False, True):
        if unset:
            monkeypatch.delenv("nnUNet_raw")
        assert run("report", "-d", "42", "-np", "1")[0] == 0
        output = tmp_path / f"exported_{unset}"
        assert run("export", "-d", "42", "-tr", "nnUNetTrainer", "-o", output) == (0, "")
        assert (output / "fold_all" / "checkpoint_final.pth").is_file()


def test_an_export_that_fails_leaves_nothing(
    run: Run, project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half of the label maps nor the folder; what was there stays."""
    assert run("pseudolabel", "-d", "42", "--from-model", random_model(project), *CPU, "--overwrite")[0] == 0
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    original = export.to_original_grid
    calls: list[int] = []

    def fails_at_the_second(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "disk")
        return original(*arguments)

    monkeypatch.setattr(export, "to_original_grid", fails_at_the_second)
    old = tmp_path / "old"
    old.mkdir()
    (old / "mine.txt").touch()
    for folder in (tmp_path / "new", old):
        with pytest.raises(UserError, match="the disk reports an error"):
            export.export_pseudo_labels(store, project, folder)
    assert not (tmp_path / "new").exists()
    assert [file.name for file in old.iterdir()] == ["mine.txt"]
    assert_refused(run, tmp_path, "mine.txt", "pseudolabel", "-d", "42", *CPU, "--export", old / "mine.txt")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from-model", "a", "--from-images", "b"), "not allowed with argument"),
        (("--from-model", "a", "-chk", "best"), "it goes with neither --from-model nor --from-images"),
        (("-tr", "a", "--round", "1", "-chk", "best"), "nor --from-images nor -tr"),
        (("-tr", "a"), "-tr labels the pool for a round of SFR+; add --round 1"),
        (("-tr", "a", "--from-model", "b"), "not allowed with argument"),
        (("--round", "1", "--from-model", "a"), "fill the store of round 0"),
        (("--round", "-1"), "must be 0, 1, 2, ..., got '-1'"),
        (("--from-images", "a", "-chk", "final"), "it goes with neither --from-model nor --from-images"),
        (("--model-folds", "0"), "--model-folds goes with --from-model only"),
        (("--trust",), "--trust goes with --from-model and -tr"),
        (("--from-images", "a", "--model-folds", "0"), "--model-folds goes with --from-model only"),
        (("--from-images", "a", "--model-checkpoint", "b.pth"), "--model-checkpoint goes with --from-model only"),
        (("--from-images", "a", "-device", "cpu"), "-device does not go with --from-images"),
        (("--from-images", "a", "--export", "a"), "--export would overwrite the label maps"),
        (("--from-images", "a", "--export", "b/../a"), "--export would overwrite the label maps"),
        (("-num_parts", "2", "-part_id", "2"), "-part_id must lie between 0 and -num_parts - 1, got 2"),
        (("-num_parts", "-3"), "argument -num_parts: must be a whole number above 0, got '-3'"),
        (("-part_id", "-1"), "argument -part_id: must be 0, 1, 2, ..., got '-1'"),
        (("-f", "-1"), "argument -f: must be all, or 0, 1, 2, ..., got '-1'"),
    ],
)
def test_options_of_pseudolabel_that_do_not_go_together(
    options: tuple[str, ...], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("pseudolabel", "-d", "42", *options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_round_of_sfr_plus_in_order(
    run: Run, project: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-d", "42", "-p", PLANS)
    cpu = ("-device", "cpu")
    assert_refused(run, tmp_path, "there is no such model", "pseudolabel", *arguments, "--round", "1", "-tr", "None")
    assert_refused(run, tmp_path, "round_1_model: there are no pseudo-labels", "select", *arguments)
    shutil.rmtree(project.paths.pseudo_labels("all"))
    assert run("finetune", *arguments, *cpu)[0] == 0
    assert run("pseudolabel", *arguments, *cpu)[0] == 0
    random_model(project, mirror_axes=(0, 1, 2))
    assert run("pseudolabel", *arguments, *cpu, "--round", "1", "-tr", "nnUNetTrainer")[0] == 0
    assert_refused(run, tmp_path, "round_1_selection.json: not found", "finetune", *arguments, *cpu, "--round", "1")

    (tmp_path / "sharp.txt").write_text("unlabelled_01  # looked at\n")
    (tmp_path / "typo.txt").write_text("unlabeled_01\n")
    assert_refused(
        run, tmp_path, "unlabeled_01: is to be overruled", "select", *arguments, "--high", tmp_path / "typo.txt"
    )
    code, stderr = run("select", *arguments, "--quantile", "0", "--high", tmp_path / "sharp.txt")
    assert (code, stderr) == (0, "")
    selection = project.paths.selection("all", 1)
    assert json.loads(selection.read_text(encoding="utf-8"))["high"] == ["unlabelled_01"]
    assert selection.with_suffix(".png").is_file()
    code, stderr = run("select", *arguments, "--confidence", "paper")
    assert "warning: no case is high" in stderr
    assert json.loads(selection.read_text(encoding="utf-8"))["rule"]["threshold"] == 0.985

    assert run("select", *arguments)[0] == 0
    assert run("finetune", *arguments, *cpu, "--round", "1")[0] == 0
    assert run("pseudolabel", *arguments, *cpu, "--round", "1")[0] == 0
    again = PseudoLabelStore.open(project.paths.pseudo_labels("all", round_index=1), grid=project.grid)
    assert again.identifiers() == ["unlabelled_00", "unlabelled_01"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--round", "0"), "--round must be 1 or later"),
        (("--threshold", "0.9", "--quantile", "0.5"), "not allowed with argument"),
        (("--threshold", "1.5"), "must be a number from 0 to 1, got '1.5'"),
        (("--quantile", "half"), "must be a number from 0 to 1, got 'half'"),
        (("--confidence", "gut_feeling"), "invalid choice"),
    ],
)
def test_options_of_select_that_make_no_sense(
    options: tuple[str, ...], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("select", "-d", "42", *options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


SLOW = ("torch", "nnunetv2", "SimpleITK", "nibabel", "blosc2", "scipy")
"""What takes seconds to import together."""

MISTAKE = f"""
import sys
from importlib import import_module

for command, options in {{
    "plan_and_preprocess": [],
    "finetune": [],
    "pseudolabel": [],
    "crosscheck": [],
    "select": ["--round", "1"],
    "run": [],
    "report": [],
    "review": ["--no-browser"],
    "export": ["-tr", "nnUNetTrainerSFR_MT", "-o", "model.zip"],
    "add_labels": ["-i", "corrected"],
    "adapt_weights": ["-i", "weights.pth", "-o", "adapted.pth"],
}}.items():
    sys.argv = [f"sfr_{{command}}", "-d", "77", *options]
    assert import_module(f"nnunet_sfr.entry_points.{{command}}").main() == 1, command
    assert not {set(SLOW)!r} & set(sys.modules), command
"""


def test_a_mistake_is_told_before_seconds_of_imports(project: SFRDataset) -> None:
    ended = subprocess.run([sys.executable, "-c", MISTAKE], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 0, ended.stderr
    raw = f"nnUNet_raw ({nnunet_root('nnUNet_raw')})"
    line = f"error: no data set 77 in {raw}; check -d and the variable (there: {project.paths.dataset_name})"
    assert ended.stderr.splitlines() == 11 * [line]
