"""Studies: equal iterations, independent seeds, stopping and continuing, and the table's arithmetic."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from filelock import FileLock

from benchmarks import study as command
from benchmarks.studies import paper, pseudo_labels, results, steps, table, training
from benchmarks.studies.all_labels import link_all_labels
from benchmarks.studies.gap import share_of_gap
from benchmarks.studies.paper import paper_datasets
from benchmarks.studies.pseudo_labels import measure_pseudo_labels
from benchmarks.studies.steps import Steps, needs_sam
from benchmarks.studies.study import ALL_LABELS, KNOWN_TRAINERS, Study, StudyFolders, open_workspace
from benchmarks.workspace import CONFIGURATION, ProjectFolders, change_settings
from nnunet_sfr.atomic import write_json
from nnunet_sfr.conversion import PUBLIC_DATASETS
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers import find_trainer
from tests.tiny_dataset import write_image
from tests.tiny_project import change_settings as change_plan

STUDY = Study(
    source="/nowhere",
    labelled=4,
    spacing=2.5,
    iterations=400,
    iterations_per_epoch=50,
    validation_iterations_per_epoch=5,
    sam="vit_tiny",
    adaptation=None,
    sam_iterations=80,
    rounds=2,
    planner="ExperimentPlannerCPU",
    device="cpu",
)


class FakeCommands:
    """Stands in for ``subprocess.run``: writes what the commands would, and can die at one of them.

    Args:
        die_at: number of the command at which Ctrl-C comes, counted from 0.
    """

    def __init__(self, die_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.die_at = die_at

    def __call__(self, command: Sequence[str], *, env: dict[str, str], **_: Any) -> SimpleNamespace:
        if len(self.lines) == self.die_at:
            raise KeyboardInterrupt
        project = Path(env["nnUNet_results"]).parent
        if "benchmarks.studies.training" in command:
            self._train(list(command), project)
        else:
            self.lines.append(" ".join(part for part in command if part not in ("-c", CONFIGURATION, "-f", "all")))
            if command[0] == "sfr_plan_and_preprocess":
                self._plan(Path(env["nnUNet_preprocessed"]))
        return SimpleNamespace(returncode=0)

    def _plan(self, preprocessed: Path) -> None:
        plan = {"configurations": {CONFIGURATION: {"retraining": {"seed": 42}, "fine_tuning": {"iterations": 2000}}}}
        write_json(plan, preprocessed / "Dataset120_LA" / "nnUNetPlansCPU_SFRPlans.json")
        write_json({}, preprocessed / "Dataset120_LA" / "dataset_fingerprint.json")
        (preprocessed.parent / "nnUNet_results").mkdir()

    def _train(self, command: list[str], project: Path) -> None:
        trainer, record = command[3], Path(command[4])
        given = {name: command[command.index(f"--{name}") + 1] for name in ("dataset", "seed", "iterations-per-epoch")}
        plans = list(project.glob("nnUNet_preprocessed/*/*_SFRPlans.json"))
        for plan in plans:
            schedule = json.loads(plan.read_text(encoding="utf-8"))["configurations"][CONFIGURATION]["retraining"]
            assert str(schedule["seed"]) == given["seed"]
            assert str(schedule["iterations_per_epoch"]) == given["iterations-per-epoch"]
        assert len(plans) == (given["dataset"] == "120")
        predicts = "--predictions" in command
        whose = trainer if given["dataset"] == "120" else f"{trainer} on {given['dataset']}"
        self.lines.append(f"train {whose} seed {given['seed']} x{given['iterations-per-epoch']} {predicts}")
        measured = {"seconds": 60.0, "median_step_seconds": 0.5, "peak_memory_bytes": 2**30, "resumed": False}
        write_json(measured, record)
        if predicts:
            Path(command[-1]).mkdir()


def fake_convert(study: Study, dataset: Path) -> None:
    (dataset / "imagesUl").mkdir(parents=True)


@pytest.fixture
def run_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run trainers and seeds of a study with fake commands; returns the commands."""
    monkeypatch.setattr(steps, "convert", fake_convert)

    def run(
        trainers: Sequence[str], seeds: Sequence[int], die_at: int | None = None, study: Study = STUDY
    ) -> tuple[list[str], StudyFolders]:
        commands = FakeCommands(die_at)
        monkeypatch.setattr(subprocess, "run", commands)
        workspace = open_workspace(tmp_path, study)
        work = Steps(study, workspace, threads=1)
        work.prepare(with_sam=any(needs_sam(trainer) for trainer in trainers), with_all_labels=ALL_LABELS in trainers)
        for seed in seeds:
            for trainer in trainers:
                work.run(trainer, seed)
        return commands.lines, workspace

    return run


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_all_rounds_together_have_as_many_epochs_as_a_run_in_one_go(rounds: int) -> None:
    study = replace(STUDY, rounds=rounds)
    shares = [study.epochs_of_round(index) for index in range(rounds + 1)]
    assert sum(shares) == study.epochs == 8
    assert min(shares) >= 1


def test_iterations_that_do_not_come_out_even_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="400 is no multiple of --iterations-per-epoch 60"):
        open_workspace(tmp_path, replace(STUDY, iterations_per_epoch=60))
    with pytest.raises(UserError, match="1 epochs, too few for 3 rounds"):
        open_workspace(tmp_path, replace(STUDY, iterations_per_epoch=400))


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    open_workspace(tmp_path, STUDY)
    open_workspace(tmp_path, STUDY)
    with pytest.raises(UserError, match=r"4_labelled_2\.5mm: was begun with another study \(iterations 400\)"):
        open_workspace(tmp_path, replace(STUDY, iterations=800))


DATA = "-d 120 -p nnUNetPlansCPU"
SHARED = [
    "sfr_plan_and_preprocess -d 120 -pl ExperimentPlannerCPU -sam vit_tiny -overwrite_target_spacing 2.5 2.5 2.5",
    f"sfr_finetune {DATA} -device cpu",
    f"sfr_pseudolabel {DATA} -device cpu",
]


def test_the_adaptation_is_handed_to_planning(run_study: Any) -> None:
    lines, workspace = run_study((), [], study=replace(STUDY, sam="lite_medsam", adaptation="few_shot"))
    assert lines == [
        "sfr_plan_and_preprocess -d 120 -pl ExperimentPlannerCPU -sam lite_medsam -adaptation few_shot "
        "-overwrite_target_spacing 2.5 2.5 2.5"
    ]
    with pytest.raises(UserError, match=r"was begun with another study \(adaptation few_shot\)"):
        open_workspace(workspace.folder.parent, replace(STUDY, sam="lite_medsam", adaptation="lora"))


def test_a_study_from_before_there_were_adaptations_continues(tmp_path: Path) -> None:
    file = open_workspace(tmp_path, STUDY).folder / "study.json"
    earlier = json.loads(file.read_text(encoding="utf-8"))
    del earlier["adaptation"]
    write_json(earlier, file)
    open_workspace(tmp_path, STUDY)
    with pytest.raises(UserError, match=r"another study \(adaptation None\)"):
        open_workspace(tmp_path, replace(STUDY, adaptation="decoder"))


def test_sam_and_adaptation_are_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Study] = []
    monkeypatch.setattr(command, "_run", lambda study, workspace, options: seen.append(study))
    monkeypatch.setattr(command, "_write_table", lambda *_: None)
    assert command.main(["LA", "source", "--output", str(tmp_path / "a")]) == 0
    assert (
        command.main(["LA", "source", "--output", str(tmp_path / "b"), "--sam", "mobile_sam", "--adaptation", "lora"])
        == 0
    )
    assert [(study.sam, study.adaptation) for study in seen] == [("lite_medsam", None), ("mobile_sam", "lora")]


def in_one_go(trainer: str, seed: int) -> list[str]:
    return [f"train {trainer} seed {seed} x50 True"]


def in_rounds(seed: int) -> list[str]:
    return [
        f"train nnUNetTrainerSFR_MT_4epochs seed {seed} x50 False",
        f"sfr_pseudolabel {DATA} --round 1 -device cpu -tr nnUNetTrainerSFR_MT_4epochs",
        f"sfr_select {DATA} --round 1",
        f"sfr_finetune {DATA} --round 1 -device cpu",
        f"sfr_pseudolabel {DATA} --round 1 -device cpu",
        f"train nnUNetTrainerSFRPlus_MT_2epochs seed {seed} x50 False",
        f"sfr_pseudolabel {DATA} --round 2 -device cpu -tr nnUNetTrainerSFRPlus_MT_2epochs",
        f"sfr_select {DATA} --round 2",
        f"sfr_finetune {DATA} --round 2 -device cpu",
        f"sfr_pseudolabel {DATA} --round 2 -device cpu",
        f"train nnUNetTrainerSFRPlus_MT_round2_2epochs seed {seed} x50 True",
    ]


def test_every_trainer_gets_the_same_number_of_iterations(run_study: Any) -> None:
    trainers = ("nnUNetTrainer", "nnUNetTrainer_MT", "nnUNetTrainerSFR_MT", "nnUNetTrainerSFRPlus_MT")
    lines, workspace = run_study(trainers, [1, 2])
    expected = list(SHARED)
    for seed in (1, 2):
        for trainer in ("nnUNetTrainer", "nnUNetTrainer_MT_8epochs", "nnUNetTrainerSFR_MT_8epochs"):
            expected += in_one_go(trainer, seed)
        expected += in_rounds(seed)
    assert lines == expected
    base = json.loads(workspace.base.sfr_plan.read_text(encoding="utf-8"))["configurations"][CONFIGURATION]
    assert base["retraining"]["seed"] == 42, "runs share files with the base by hard links and must not change them"
    assert base["fine_tuning"] == {"iterations": 80, "warmup_fraction": 0.125, "validation_every": 40}


def test_every_seed_can_have_a_sam_of_its_own(run_study: Any) -> None:
    """Fine-tuned once for all trainers of the seed; those that read no labels do not wait for it."""
    study = replace(STUDY, sam_per_seed=True, rounds=1)
    lines, workspace = run_study(("nnUNetTrainer", "nnUNetTrainerSFR_MT", "nnUNetTrainerSFR_ACMT"), [1, 2], study=study)
    sam = [f"sfr_finetune {DATA} -device cpu", f"sfr_pseudolabel {DATA} -device cpu"]
    expected = [line for line in SHARED if line not in sam]
    assert len(expected) == len(SHARED) - 2
    for seed in (1, 2):
        expected += in_one_go("nnUNetTrainer", seed) + sam
        expected += in_one_go("nnUNetTrainerSFR_MT_8epochs", seed) + in_one_go("nnUNetTrainerSFR_ACMT_8epochs", seed)
    assert lines == expected
    assert workspace.folder.name == "4_labelled_2.5mm_sam_per_seed"
    bases = workspace.bases_with_sam(study)
    assert [base.folder.parent.name for base in bases] == ["seed_1", "seed_2"]
    seeds = [
        json.loads(project.sfr_plan.read_text(encoding="utf-8"))["configurations"][CONFIGURATION]
        for project in (
            workspace.base,
            *bases,
            workspace.run("nnUNetTrainerSFR_MT", 2),
            workspace.run("nnUNetTrainer", 2),
        )
    ]
    assert [settings["fine_tuning"].get("seed") for settings in seeds] == [None, 1, 2, 2, None]


def test_all_labels_are_trained_with_the_plan_of_the_few(
    run_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(study: Study, dataset: Path) -> None:
        """Cases a and b are labelled, c and d are not; d has no truth."""
        for folder, cases in {"imagesTr": "ab", "imagesUl": "cd", "labelsTr": "ab", "labelsUl_truth": "c"}.items():
            for case in cases:
                file = dataset / folder / (f"{case}_0000.nii.gz" if folder.startswith("images") else f"{case}.nii.gz")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(file.name)
        write_json({"numTraining": 2, "file_ending": ".nii.gz"}, dataset / "dataset.json")

    monkeypatch.setattr(steps, "convert", convert)
    lines, workspace = run_study(("nnUNetTrainer", ALL_LABELS), [1])
    assert lines == [
        SHARED[0],
        "nnUNetv2_move_plans_between_datasets -s 120 -t 121 -sp nnUNetPlansCPU -tp nnUNetPlansCPU",
        "nnUNetv2_preprocess -d 121 -plans_name nnUNetPlansCPU -np 1",
        "train nnUNetTrainer seed 1 x50 True",
        "train nnUNetTrainer on 121 seed 1 x50 True",
    ]
    full = workspace.base_of_all
    assert json.loads((full.preprocessed / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 3
    assert sorted(file.name for file in (full.raw_dataset / "labelsTr").iterdir()) == [
        f"{case}.nii.gz" for case in "abc"
    ]
    assert sorted(file.name[0] for file in (full.raw_dataset / "imagesTr").iterdir()) == ["a", "b", "c"]
    assert workspace.seeds(ALL_LABELS) == [1]
    assert run_study(("nnUNetTrainer", ALL_LABELS), [1])[0] == []


def test_the_spacing_of_tiff_labels_goes_with_them(tmp_path: Path) -> None:
    raw = tmp_path / "few"
    for folder, cases in {"imagesTr": "a", "imagesUl": "b", "labelsTr": "a", "labelsUl_truth": "b"}.items():
        (raw / folder).mkdir(parents=True)
        for case in cases:
            channel = "_0000" if folder.startswith("images") else ""
            (raw / folder / f"{case}{channel}.tif").touch()
            (raw / folder / f"{case}.json").touch()
    write_json({"numTraining": 1, "file_ending": ".tif"}, raw / "dataset.json")
    link_all_labels(raw, tmp_path / "all")
    files = sorted(file.name for file in (tmp_path / "all" / "labelsTr").iterdir())
    assert files == ["a.json", "a.tif", "b.json", "b.tif"]
    assert json.loads((tmp_path / "all" / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2


def test_without_pseudo_labels_no_sam_is_trained(run_study: Any) -> None:
    lines, _ = run_study(("nnUNetTrainer", "nnUNetTrainer_MT"), [1])
    assert not [line for line in lines if line.startswith(("sfr_finetune", "sfr_pseudolabel"))]


@pytest.mark.parametrize("die_at", range(15))
def test_a_stopped_study_goes_on_where_it_was(run_study: Any, die_at: int) -> None:
    trainers = ("nnUNetTrainer", "nnUNetTrainerSFRPlus_MT")
    with pytest.raises(KeyboardInterrupt):
        run_study(trainers, [1], die_at=die_at)
    rest, workspace = run_study(trainers, [1])
    assert rest == [*SHARED, *in_one_go("nnUNetTrainer", 1), *in_rounds(1)][die_at:]
    assert run_study(trainers, [1])[0] == []
    assert workspace.seeds("nnUNetTrainerSFRPlus_MT") == [1]
    record = json.loads(workspace.record("nnUNetTrainerSFRPlus_MT", 1).read_text(encoding="utf-8"))
    assert record["seconds"] == 180.0, "three trainings of a minute each"


def test_a_failed_command_is_one_line(run_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=3))
    workspace = open_workspace(tmp_path, STUDY)
    with pytest.raises(UserError, match="sfr_plan_and_preprocess failed with exit code 3"):
        Steps(STUDY, workspace, threads=1).prepare(with_sam=False)


def train_stock(project: SFRDataset, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    settings = project.settings.retraining
    trainer = training.stock_trainer(2, seed, settings.iterations_per_epoch, settings.validation_iterations_per_epoch)
    record = training.train(trainer, project, torch.device("cpu"))
    file = Path(record["model"], "fold_all", "checkpoint_final.pth")
    checkpoint = torch.load(file, map_location="cpu", weights_only=False)
    file.unlink()
    assert checkpoint["trainer_name"] == "nnUNetTrainer", "nnUNetv2_predict finds it under nnU-Net's own name"
    assert checkpoint["current_epoch"] == 2
    return checkpoint["network_weights"], record


def test_nnunets_own_trainer_is_seeded_and_gets_the_planned_iterations(project: SFRDataset) -> None:
    first, record = train_stock(project, seed=1)
    again, _ = train_stock(project, seed=1)
    other, _ = train_stock(project, seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert record["resumed"] is False
    assert record["peak_memory_bytes"] > 50 * 2**20


def test_steps_are_counted_and_predictions_have_every_test_case(project: SFRDataset, tmp_path: Path) -> None:
    change_plan(project, {"retraining": {"iterations_per_epoch": 3}})
    trainer = find_trainer("nnUNetTrainer_MT_2epochs")
    model = training.train(trainer, project, torch.device("cpu"))["model"]
    log = torch.load(Path(model, "fold_all", "checkpoint_final.pth"), weights_only=False)
    assert log["nnunet_sfr"]["iteration"] == 6
    images = project.paths.raw / "imagesUl"
    training.predict(Path(model), images, tmp_path / "predictions", torch.device("cpu"))
    predicted = {file.name for file in (tmp_path / "predictions").glob("*.nii.gz")}
    assert predicted == {image.name.replace("_0000", "") for image in images.iterdir()}


def results_of(trainer: str, dice: dict[int, list[float]]) -> results.TrainerResults:
    others = {"hd95_mm": 10.0, "asd_mm": 2.0, "nsd": 0.5, "hd95_voxels": 4.0, "asd_voxels": 0.8}
    cases = {
        seed: {
            f"case_{number}": {"organ": {"dice": value, "jaccard": value, **others}}
            for number, value in enumerate(values)
        }
        for seed, values in dice.items()
    }
    record = {"seconds": 90.0, "median_step_seconds": [0.25], "peak_memory_bytes": 512 * 2**20, "date": "2026-11-21"}
    return results.TrainerResults(trainer, cases, dict.fromkeys(dice, record))


def test_the_table_averages_over_cases_then_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = results_of("nnUNetTrainer", {1: [0.6, 0.8], 2: [0.7, 0.9]})
    ours = results_of("nnUNetTrainer_MT", {1: [0.7, 0.9], 2: [0.8, 1.0], 3: [0.1, 0.1]})
    monkeypatch.setattr(table, "read_results", lambda _: [stock, ours])
    workspace = open_workspace(tmp_path, STUDY)
    (workspace.base.raw_dataset / "imagesUl").mkdir(parents=True)
    lines = table.write_results(STUDY, workspace, update_readme=False).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[2], lines[3])]
    # means of the seeds 0.7 and 0.8: mean 0.75, standard deviation 0.0707
    assert cells[0][:5] == ["nnUNetTrainer", "0.750 ± 0.071", "0.700, 0.800", "0.650", ""]
    # 0.8, 0.9, 0.1; over the two common seeds every case is 0.1 better, so that the interval has no width
    assert cells[1][1:5] == ["0.600 ± 0.436", "0.800, 0.900, 0.100", "0.533", "+0.100 (+0.100 to +0.100)"]
    assert cells[1][5:] == ["10.0 ± 0.0", "2.0 ± 0.0", "1.5", "0.25", "512"]
    numbers = json.loads((workspace.folder / "results.json").read_text(encoding="utf-8"))
    assert numbers["trainers"]["nnUNetTrainer"]["dice"] == {"1": pytest.approx(0.7), "2": pytest.approx(0.8)}
    assert "source" not in numbers["study"], "a path of this machine belongs to no commit"


def test_a_case_that_some_seeds_have_no_dice_of_is_compared_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its truth is empty: Dice is 0 where a model finds something, and undefined where it does not."""
    none: Any = None
    made = [
        results_of("nnUNetTrainer", {1: [0.6, 0.8, 0.0, 0.4], 2: [0.6, 0.8, none, 0.4]}),
        results_of("nnUNetTrainerSFR_MT", {1: [0.7, none, 0.0, 0.5], 2: [0.7, 0.9, 0.0, 0.5]}),
        results_of(ALL_LABELS, {1: [0.8, 1.0, none, 0.6], 2: [0.8, 1.0, 0.0, 0.6]}),
    ]
    monkeypatch.setattr(table, "read_results", lambda _: made)
    workspace = open_workspace(tmp_path, STUDY)
    (workspace.base.raw_dataset / "imagesUl").mkdir(parents=True)
    lines = table.write_results(STUDY, workspace, update_readme=False).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:5]]
    assert [line[3] for line in cells] == ["0.400", "0.000", "0.600"]
    assert cells[1][4:6] == ["+0.100 (+0.100 to +0.100)", "0.50 (0.50 to 0.50)"], "of the first and the last case"


def test_the_share_of_the_gap_and_the_classes_stand_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"nnUNetTrainer": 0.6, "nnUNetTrainerSFR_MT": 0.7, ALL_LABELS: 0.8}
    made = [results_of(trainer, {seed: [dice, dice + 0.1] for seed in (1, 2)}) for trainer, dice in scores.items()]
    for one in made:
        for cases in one.cases.values():
            for classes in cases.values():
                organ = dict(classes["organ"])
                mutable: Any = classes
                mutable["other"] = {**organ, "dice": None if organ["dice"] == 0.6 else organ["dice"]}
    monkeypatch.setattr(table, "read_results", lambda _: made)
    study = replace(STUDY, dataset="BTCV", cases_seed=2)
    workspace = open_workspace(tmp_path, study)
    (workspace.base.raw_dataset / "imagesUl").mkdir(parents=True)
    lines = table.write_results(study, workspace, update_readme=False).splitlines()
    heading, _, stock, ours, full, _, of_classes, _, first = ([*map(str.strip, line.split("|"))] for line in lines[:9])
    column = heading.index("share of the gap closed (95 %)")
    # every case and seed is half way between few and all labels, so that no draw gives another share
    assert (stock[column], ours[column], full[column]) == ("", "0.50 (0.50 to 0.50)", "")
    assert of_classes[1:4] == ["Dice of each class", "organ", "other"]
    assert first[1:4] == ["nnUNetTrainer", "0.650", "0.700"]
    assert "- data: BTCV, 4 labelled (drawn with seed 2), 0 unlabelled, 2 to test" in "\n".join(lines)
    numbers = json.loads((workspace.folder / "results.json").read_text(encoding="utf-8"))
    assert numbers["classes"]["nnUNetTrainer"]["organ"] == {"1": pytest.approx(0.65), "2": pytest.approx(0.65)}


def test_the_interval_of_a_share_is_over_cases_and_seeds() -> None:
    few, full = np.array([[0.5, 0.7]]), np.array([[0.8, 1.0]])
    # one seed, two cases, which gain 0 and 0.3 of a gap of 0.3: draws of two cases give 0, 0.5 and 1
    share = share_of_gap(np.array([[0.5, 1.0]]), few, full)
    assert [share.value, share.low, share.high] == pytest.approx([0.5, 0.0, 1.0])
    # two seeds, one on each side, and cases that are alike: only seeds make the interval
    share = share_of_gap(np.array([[0.5, 0.7], [0.8, 1.0]]), few, full)
    assert [share.value, share.low, share.high] == pytest.approx([0.5, 0.0, 1.0])
    assert share_of_gap(few, few, full).value == 0.0
    assert math.isnan(share_of_gap(full, full, few).value), "all labels are no better: there is no gap"
    single = share_of_gap(few[:, :1], few[:, :1], full[:, :1])
    assert single.value == 0.0
    assert math.isnan(single.low)


def test_distances_are_measured_in_mm_and_in_voxels(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, STUDY)
    raw, predictions = workspace.base.raw_dataset, workspace.predictions("nnUNetTrainer", 1)
    truth = np.zeros((4, 6, 6), np.uint8)
    truth[1, 1, 1] = 1
    for folder, voxels in ((raw / "labelsTs", truth), (predictions, np.roll(truth, 1, axis=2))):
        write_image(folder / "a.nii.gz", voxels, (5.0, 1.0, 2.5))
    labels = {"background": 0, "spleen": 1, "liver": 2}
    write_json({"labels": labels, "file_ending": ".nii.gz"}, raw / "dataset.json")
    write_json({"seconds": 1.0}, workspace.record("nnUNetTrainer", 1))
    (read,) = results.read_results(workspace)
    assert read.of_cases("asd_mm", 1) == {"a": 2.5}
    assert read.of_cases("asd_voxels", 1) == {"a": 1.0}
    assert read.cases[1]["a"]["liver"]["dice"] is None, "a class that neither has is in no mean"
    assert read.of_cases("dice", 1) == {"a": 0.0}


def test_one_seed_has_no_spread() -> None:
    assert table.mean_and_spread([0.5], 2) == "0.50"


def test_a_wrong_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["LA", "source", "--spacing", "-1"])
    assert "must be millimetres above 0, or planned" in capsys.readouterr().err


def test_a_table_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["LA", "source", "--output", str(tmp_path), "--table-only"]) == 1
    assert "no run is finished" in capsys.readouterr().err


def test_options_of_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Study] = []
    monkeypatch.setattr(command, "_run", lambda study, workspace, options: seen.append(study))
    monkeypatch.setattr(command, "_write_table", lambda *_: None)
    output = ["--output", str(tmp_path)]
    assert command.main(["MACT", "source", *output, "--fold", "1", "--list", "magicnet", "--labelled", "7"]) == 0
    assert command.main(["nnunet", "Dataset005_X", *output, "--cases-seed", "1"]) == 0
    assert command.main(["BraTS", "source", *output, "--protocol", "paper", "--iterations", "500"]) == 0
    mact, nnunet, brats = seen
    assert (mact.name, mact.spacing) == ("7_labelled_planned_spacing_fold-1_list-magicnet", None)
    assert (nnunet.source, nnunet.name) == ("Dataset005_X", "4_labelled_planned_spacing_cases1")
    assert (brats.sam, brats.adaptation, brats.iterations, brats.device) == ("vit_b", "lora", 500, "cuda")
    assert (brats.planner, brats.iterations_per_epoch) == ("ExperimentPlanner", 250)
    assert command.main(["LA", "source", *output, "--fold", "1"]) == 1
    assert "--fold is no option of LA" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["LA"])
    assert "give DATASET and SOURCE, or --paper DATASET" in capsys.readouterr().err


def test_a_study_of_the_left_atrium_benchmark_continues(tmp_path: Path) -> None:
    """Its folder knows nothing of other data sets."""
    file = open_workspace(tmp_path, STUDY).folder / "study.json"
    earlier = {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if key in LA_KEYS}
    assert len(earlier) == 12
    write_json(earlier, file)
    assert open_workspace(tmp_path, STUDY).base.dataset == "Dataset120_LA"
    with pytest.raises(UserError, match=r"another study \(dataset LA\)"):
        open_workspace(tmp_path, replace(STUDY, dataset="BTCV"))


LA_KEYS = (
    "source", "labelled", "spacing", "iterations", "iterations_per_epoch", "validation_iterations_per_epoch", "sam",
    "adaptation", "sam_iterations", "rounds", "planner", "device",
)  # fmt: skip


@pytest.mark.parametrize("dataset", paper_datasets())
def test_the_tables_of_the_paper(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "BENCHMARKS", tmp_path)
    tables = json.loads(paper.TABLES.read_text(encoding="utf-8"))["datasets"][dataset]
    classes = [name for _, name in tables["columns"] if name not in results.METRICS]
    if classes:
        labels = import_module(f"nnunet_sfr.conversion.{PUBLIC_DATASETS[dataset].module}").LABELS
        assert classes == [name for name in labels if name != "background"]
        for row in tables["rows"]:
            mean, *organs = row["values"]
            if None not in organs:
                assert mean == pytest.approx(sum(organs) / len(organs), abs=0.5), row
    for row in tables["rows"]:
        assert len(row["values"]) == len(tables["columns"])
        assert row["ours"] is None or row["ours"] in KNOWN_TRAINERS
    lines = paper.paper_table(dataset, tmp_path).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + 2 * len(tables["rows"])
    ours = [[cell.strip() for cell in line.split("|")[4:-1]] for line in lines if "| ours" in line]
    assert all(cells == ["ours", *[""] * len(tables["columns"])] for cells in ours), "empty where nothing was run"


def test_the_results_that_come_along_stand_in_the_tables(tmp_path: Path) -> None:
    lines = paper.paper_table("LA", tmp_path).splitlines()
    ours = [line for line in lines if "ours: 16 tested, 2.5 mm, 400 iterations" in line and "SFR-MT" in line]
    # the Dice of the README's first table
    assert any("78.99" in line for line in ours)


def test_results_of_another_shape_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "BENCHMARKS", tmp_path)
    file = tmp_path / "x" / "results.json"
    write_json({"study": {**STUDY.as_json()}, "trainers": {}}, file)
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}.*cases.*--table-only"):
        paper.paper_table("LA", tmp_path)


def test_our_numbers_stand_beside_those_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "BENCHMARKS", tmp_path)
    study = {**STUDY.as_json(), "labelled": 1}
    metrics = {"dice": {"1": 0.7, "2": 0.8}, "jaccard": {"1": 0.6}, "asd_voxels": {"1": 2.5}}
    cases = {"labelled": 1, "unlabelled": 63, "test": 16}
    content = {"study": study, "cases": cases, "trainers": {"nnUNetTrainerSFR_MT": metrics}}
    write_json(content, tmp_path / "x" / "results.json")
    lines = paper.paper_table("LA", tmp_path).splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "SFR-MT" in line and "SFR+" not in line
    ]
    assert [row[1:] for row in rows if row[0] == "VII"] == [
        ["1/79", "SFR-MT", "paper", "74.40", "61.47", "6.25", "25.90"],
        ["1/63", "SFR-MT", "ours: 16 tested, 2.5 mm, 400 iterations", "75.00", "60.00", "2.50", ""],
    ]
    assert [row[4:] for row in rows if row[0] == "VI" and row[3] == "ours"] == [[""] * 4] * 2, "other patches"
    assert command.main(["--paper", "LA", "--output", str(tmp_path)]) == 0


def test_a_study_of_an_earlier_version_is_no_other_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not know has its default; one that differs is told apart in words."""
    monkeypatch.setattr(paper, "BENCHMARKS", tmp_path / "published")
    study = {**STUDY.as_json(), "labelled": 1}
    earlier = {key: value for key, value in study.items() if key not in ("sam_per_seed", "dataset")}
    content = {
        "cases": {"labelled": 1, "unlabelled": 63, "test": 16},
        "trainers": {"nnUNetTrainerSFR_MT": {"dice": {"1": 0.7}}},
    }
    files = (tmp_path / "x" / "results.json", tmp_path / "y" / "results.json", tmp_path / "published/results/la.json")
    for file, one in zip(files, (study, {**study, "sam_per_seed": True}, earlier), strict=True):
        write_json({**content, "study": one}, file)
    lines = [line for line in paper.paper_table("LA", tmp_path).splitlines() if "ours: 16 tested" in line]
    assert len(lines) == 2
    assert [" 400 iterations, a SAM for each seed |" in line for line in lines] == [False, True]


def test_settings_of_the_plan_are_changed_by_section(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_json({"configurations": {CONFIGURATION: {"sam": {"model": "vit_b"}}}, "plans_name": "x"}, file)
    change_settings(file, {"retraining": {"seed": 3}})
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content == {
        "configurations": {CONFIGURATION: {"sam": {"model": "vit_b"}, "retraining": {"seed": 3}}},
        "plans_name": "x",
    }


def test_a_run_that_another_process_is_at_is_left_to_it(run_study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, workspace = run_study((), [])
    lock = workspace.run("nnUNetTrainer", 1).folder.with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        lines, _ = run_study(("nnUNetTrainer", "nnUNetTrainer_MT"), [1])
    assert [line for line in lines if line.startswith("train")] == ["train nnUNetTrainer_MT_8epochs seed 1 x50 True"]
    assert "[seed_1/nnUNetTrainer] another process is at it" in capsys.readouterr().out


def test_pseudo_labels_of_every_round_are_measured(run_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, workspace = run_study(("nnUNetTrainerSFRPlus_MT",), [1, 2])
    assert measure_pseudo_labels(STUDY, workspace) == {}, "without the truth of the unlabelled cases"
    (workspace.base.raw_dataset / "labelsUl_truth").mkdir()
    measured: list[tuple[str, str]] = []

    def dice(project: ProjectFolders, store: str) -> float:
        measured.append((project.folder.parent.name, store))
        return 0.5

    monkeypatch.setattr(pseudo_labels, "_mean_dice", dice)
    trainer = "nnUNetTrainerSFRPlus_MT"
    assert measure_pseudo_labels(STUDY, workspace) == {
        "SAM, round 0": [0.5],
        f"{trainer}: the network before round 1": [0.5, 0.5],
        f"{trainer}: SAM, round 1": [0.5, 0.5],
        f"{trainer}: the network before round 2": [0.5, 0.5],
        f"{trainer}: SAM, round 2": [0.5, 0.5],
    }
    assert measured[1:5] == [
        ("seed_1", "round_1_model"),
        ("seed_2", "round_1_model"),
        ("seed_1", "round_1"),
        ("seed_2", "round_1"),
    ]


def test_pseudo_labels_are_measured_on_the_original_grid(project: SFRDataset) -> None:
    """Truth equal to the labels that are exported: a Dice of 1; a truth elsewhere: 0."""
    truth = project.paths.raw / "labelsUl_truth"
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    export_pseudo_labels(store, project, truth)
    root = project.paths.raw.parent.parent
    here = ProjectFolders(root, root / "nnUNet_raw", project.paths.plans_name, project.paths.dataset_name)
    assert pseudo_labels._measure(here, "round_0") == pytest.approx(1.0)
    for file in truth.glob("*.nii.gz"):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        array[:] = 0
        array[0, 0, 0] = 1
        wrong = sitk.GetImageFromArray(array)
        wrong.CopyInformation(image)
        sitk.WriteImage(wrong, str(file))
    assert pseudo_labels._measure(here, "round_0") == 0.0
