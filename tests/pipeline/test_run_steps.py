"""The steps of a run: what is skipped, continued and started again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import StepError, UserError
from nnunet_sfr.interruption import InterruptedRunError
from nnunet_sfr.pipeline.digests import HashCache
from nnunet_sfr.pipeline.parts import SAM_WEIGHTS, sam_part_of_earlier_versions, settings_parts
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.run_steps import run_steps
from nnunet_sfr.pipeline.sfr_steps import FineTune
from tests.pipeline.fake_commands import FakeCommands, go, run_options, set_time
from tests.tiny_dataset import write_image
from tests.tiny_project import change_settings

TRAIN = "nnUNetv2_train"
SFR_STEPS = ["sfr_finetune", "sfr_pseudolabel", TRAIN]
ROUND = ["sfr_pseudolabel --round", "sfr_select --round", "sfr_finetune --round", "sfr_pseudolabel --round", TRAIN]


def state(fake: FakeCommands) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads(fake.project.options.paths.state.read_text(encoding="utf-8"))[
        "steps"
    ]
    return content


def test_a_run_takes_every_step_once(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    run_steps(fake.project.options, "sfr_run", fake)
    case = "-d 42 -c 3d_fullres -f all -p nnUNetPlansCPU -device cpu"
    assert fake.lines == [
        # planned by hand, and nothing has changed since
        f"sfr_finetune {case}",
        f"sfr_pseudolabel {case}",
        "nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p nnUNetPlansCPU -device cpu",
    ]
    fake.taken()
    assert go(fake) == []
    steps = state(fake)
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(
        ("plan", "fine-tune", "pseudo-label", "train", "validate"), "done"
    )
    assert steps["train"]["exit_code"] == 0
    log = fake.project.options.paths.folder / str(steps["train"]["log"])
    assert log.read_text(encoding="utf-8").startswith("nnUNetv2_train 42")


def test_a_cross_check_on_request_comes_before_the_training(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(crosscheck=True))
    assert go(fake) == ["sfr_finetune", "sfr_pseudolabel", "sfr_crosscheck", "nnUNetv2_train"]
    assert go(fake) == []
    change_settings(planned, {"pseudo_labels": {"tile_step_size": 0.75}})
    assert go(fake) == ["sfr_pseudolabel --overwrite", "sfr_crosscheck --overwrite", "nnUNetv2_train"]


def test_folds_share_one_cross_check(planned: SFRDataset) -> None:
    splits = [{"train": ["train_00", "train_01"], "val": ["train_02"]}, {"train": ["train_02"], "val": ["train_00"]}]
    planned.paths.splits_file.write_text(json.dumps(splits))

    def fake(fold: int) -> FakeCommands:
        commands = FakeCommands(planned, run_options(crosscheck=True, fold=fold))
        commands.record = {"made_by": {"source": "sam", "fold": fold}, "grid": planned.grid}
        return commands

    assert go(fake(1)) == ["sfr_finetune", "sfr_pseudolabel", "sfr_crosscheck", TRAIN]
    assert go(fake(0)) == ["sfr_finetune", "sfr_pseudolabel", "sfr_crosscheck", TRAIN], "the estimate alone, of fold 0"
    assert go(fake(0)) == go(fake(1)) == [], "of fold 0 both times"


def test_labels_that_are_made_again_cost_no_fine_tuning_of_the_cross_check(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(crosscheck=True))
    go(fake)
    fake.content = "second"
    fake.project.adapter(0).write_text("another")
    assert go(fake) == ["sfr_finetune", "sfr_pseudolabel --overwrite", "sfr_crosscheck", TRAIN]


def test_nnunet_beside_sam_continues_a_cross_check_without(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(crosscheck=True))
    go(fake)
    change_settings(planned, {"crosscheck": {"nnunet_iterations": 5}})
    assert go(fake) == [], "which SAM does not depend on"
    both = FakeCommands(planned, run_options(crosscheck=True, with_nnunet=True))
    both.raising["sfr_crosscheck"] = InterruptedRunError(15)
    with pytest.raises(InterruptedRunError):
        go(both)
    assert both.taken() == ["sfr_crosscheck --with-nnunet"], "without --overwrite: SAM's part is there"
    both.raising.clear()
    assert go(both) == ["sfr_crosscheck --with-nnunet"], "the earlier result, which is there, is that of SAM alone"
    assert go(both) == []
    change_settings(planned, {"crosscheck": {"nnunet_iterations": 6}})
    assert go(both) == ["sfr_crosscheck --with-nnunet"], "which replaces the networks by itself"
    change_settings(planned, {"pseudo_labels": {"tile_step_size": 0.75}})
    assert go(both) == ["sfr_pseudolabel --overwrite", "sfr_crosscheck --with-nnunet --overwrite", TRAIN]


def test_a_setting_that_does_not_pass_is_found_before_any_step(planned: SFRDataset) -> None:
    change_settings(planned, {"fine_tuning": {"warmup_fraction": 1.5}})
    fake = FakeCommands(planned, run_options())
    said = r"SFRPlans\.json: configuration 3d_fullres: fine_tuning: warmup_fraction must lie in \[0, 1\)"
    with pytest.raises(UserError, match=said):
        go(fake)
    assert fake.taken() == []


def test_a_failing_step_is_gone_on_with(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    fake.failing = {TRAIN: 3}
    with pytest.raises(StepError, match=r"step train failed \(exit code 3\); its log is .*train\.log") as failed:
        go(fake)
    assert failed.value.exit_code == 3
    assert state(fake)["train"]["status"] == "failed"
    assert fake.taken() == SFR_STEPS
    fake.failing = {}
    assert go(fake) == [f"{TRAIN} --c"], "there is a checkpoint to continue from"
    train = state(fake)["train"]
    assert (train["status"], train["attempts"], train["exit_code"]) == ("done", 2, 0)


def test_an_interrupted_step_is_gone_on_with(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    fake.raising = {"sfr_finetune": InterruptedRunError(15)}
    with pytest.raises(InterruptedRunError):
        go(fake)
    assert state(fake)["fine-tune"]["status"] == "interrupted"
    fake.raising = {}
    fake.taken()
    assert go(fake) == SFR_STEPS, "without --overwrite: the command continues where it was"


def test_a_command_that_ends_without_its_result_has_failed(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    fake.failing = {"sfr_pseudolabel": 0}
    with pytest.raises(StepError, match="pseudo-label ended without an error, but its result is not there"):
        go(fake)
    assert state(fake)["pseudo-label"]["status"] == "failed"


@pytest.mark.parametrize(
    ("section", "setting", "again"),
    [
        ("fine_tuning", {"seed": 7}, ["sfr_finetune --overwrite"]),
        ("pseudo_labels", {"tile_step_size": 0.6}, ["sfr_pseudolabel --overwrite", TRAIN]),
        ("retraining", {"seed": 7}, [TRAIN]),
        ("retraining", {"magicnet": {"cubes_per_axis": 2}}, []),
        ("rounds", {"fine_tuning_fraction": 0.3}, []),
    ],
)
def test_changed_settings_start_anew_what_depends_on_them(
    section: str, setting: dict[str, float], again: list[str], planned: SFRDataset
) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    change_settings(planned, {section: setting})
    # results of the same bytes, so that nothing follows from another result
    assert go(fake) == again


@pytest.mark.parametrize(
    ("options", "section", "setting", "again"),
    [
        ({}, "rounds", {"high_fraction": 0.3}, ["sfr_select --round"]),
        ({}, "rounds", {"labelled_fraction": 0.3}, ["sfr_finetune --round --overwrite"]),
        ({}, "rounds", {"fine_tuning_fraction": 0.3}, ["sfr_finetune --round --overwrite"]),
        ({}, "rounds", {"model_share": 0.3}, ["sfr_pseudolabel --round --overwrite"]),
        ({}, "rounds", {"retraining_fraction": 0.3}, [TRAIN]),
        ({"epochs": 5}, "rounds", {"retraining_fraction": 0.3}, []),
        ({"epochs": 5}, "retraining", {"epochs": 7}, []),
        ({}, "retraining", {"epochs": 7}, [TRAIN, TRAIN]),
        ({"method": "MagicNet"}, "retraining", {"magicnet": {"cubes_per_axis": 2}}, [TRAIN, TRAIN]),
    ],
)
def test_settings_of_a_round_start_anew_what_reads_them(
    options: dict[str, Any], section: str, setting: dict[str, Any], again: list[str], planned: SFRDataset
) -> None:
    fake = FakeCommands(planned, run_options(rounds=1, **options))
    go(fake)
    change_settings(planned, {section: setting})
    assert go(fake) == again


def test_records_of_earlier_versions_hold_whole_sections_of_settings(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(rounds=1))
    go(fake)
    file = fake.project.options.paths.state
    content = json.loads(file.read_text(encoding="utf-8"))
    whole = HashCache(file.with_name("none.json")).digests(settings_parts(fake.project, "retraining", "rounds"))
    for record in content["steps"].values():
        record["inputs"].update({name: value for name, value in whole.items() if name in record["inputs"]})
    file.write_text(json.dumps(content))
    assert go(fake) == []
    change_settings(planned, {"retraining": {"magicnet": {"cubes_per_axis": 2}}})
    assert go(fake) == [], "the records are those of today now"


def test_records_of_earlier_versions_say_nothing_of_modality(planned: SFRDataset) -> None:
    file = planned.paths.dataset_json
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "modality": {"0": "CT"}}))
    fake = FakeCommands(planned, run_options(rounds=1, crosscheck=True))
    go(fake)
    state_file = fake.project.options.paths.state
    written = json.loads(state_file.read_text(encoding="utf-8"))
    kept = {key: content.get(key) for key in ("labels", "regions_class_order", "channel_names", "file_ending")}
    earlier = HashCache(state_file.with_name("none.json")).digests({"dataset.json": kept})
    changed = [
        record["inputs"].update(earlier) for record in written["steps"].values() if set(earlier) & set(record["inputs"])
    ]
    assert len(changed) == 8
    state_file.write_text(json.dumps(written))
    assert go(fake) == []
    file.write_text(json.dumps({**content, "modality": {"0": "MR"}}))
    assert go(fake)[0] == "sfr_finetune --overwrite", "the records are those of today now"


def test_another_result_starts_anew_what_was_made_from_it(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    fake.content = "second"
    change_settings(planned, {"fine_tuning": {"seed": 7}})
    assert go(fake) == ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite", TRAIN]
    assert go(fake) == []


def test_what_is_started_anew_is_gone_before_the_command_runs(planned: SFRDataset) -> None:
    """Killed before it has overwritten anything, the next run must not take the old result for the new one."""
    fake = FakeCommands(planned, run_options())
    go(fake)
    change_settings(planned, {"fine_tuning": {"seed": 7}, "retraining": {"seed": 7}})
    project, training = fake.project, fake.project.training("nnUNetTrainerSFR_MT")

    for name, results in (
        ("sfr_finetune", [project.adapter(0)]),
        (TRAIN, [training / "checkpoint_final.pth", training / "checkpoint_teacher.pth", training / "validation"]),
    ):

        def killed(command: Sequence[str], log: Path, lock: Path, *, name: str = name) -> int:
            if command[0] != name:
                return fake(command, log, lock)
            raise InterruptedRunError(9)

        assert all(result.exists() for result in results)
        with pytest.raises(InterruptedRunError):
            run_steps(project.options, "sfr_run", killed)
        assert not any(result.exists() for result in results)
    fake.taken()
    assert go(fake) == [TRAIN]


def test_a_new_image_is_planned_for(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    new = planned.paths.raw_unlabelled / "unlabelled_07_0000.nii.gz"
    write_image(new, np.random.default_rng(0).normal(100, 10, (18, 22, 20)).astype(np.float32))
    # the fake planner preprocesses nothing, so nothing follows
    assert go(fake) == ["sfr_plan_and_preprocess"]
    touched = planned.paths.raw_unlabelled / "unlabelled_00_0000.nii.gz"
    set_time(touched, time.time() - 1000)
    assert go(fake) == [], "the content counts, not the time"


def test_an_image_that_was_preprocessed_anew_is_labelled_and_trained_on_anew(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    properties = planned.paths.unlabelled / "unlabelled_00.pkl"
    properties.write_bytes(properties.read_bytes() + b"changed")
    assert go(fake) == ["sfr_pseudolabel --overwrite", TRAIN]
    properties.unlink()
    assert go(fake)[0] == "sfr_plan_and_preprocess"


@pytest.mark.parametrize("array", ["unlabelled_00.b2nd", "unlabelled_00_seg.b2nd"])
def test_an_array_that_is_gone_is_preprocessed_again(array: str, planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    (planned.paths.unlabelled / array).unlink()
    with pytest.raises(StepError, match="plan ended without an error, but its result is not there"):
        go(fake)
    assert fake.taken() == ["sfr_plan_and_preprocess"], "which does nothing in this test"


def test_an_edited_network_plan_stays_and_is_trained(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    plans = json.loads(planned.paths.plans_file.read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["batch_size"] = 1
    planned.paths.plans_file.write_text(json.dumps(plans))
    assert go(fake) == [TRAIN], "SAM does not care"
    plans["configurations"]["2d"]["batch_size"] = 1
    planned.paths.plans_file.write_text(json.dumps(plans))
    assert go(fake) == [], "nor anybody about other configurations"


def test_options_that_are_left_out_change_nothing(planned: SFRDataset) -> None:
    """Whoever continues a run, or asks for its status, does not type everything again."""
    full = run_options(
        rounds=1, target_spacing=(1.0, 1.0, 1.0), planner="ExperimentPlannerCPU", selection=("--quantile", "0.3")
    )
    fake = FakeCommands(planned, full)
    assert go(fake)[0] == "sfr_plan_and_preprocess", "the options of the plan by hand are unknown"
    short = FakeCommands(planned, run_options(rounds=1))
    assert go(short) == []
    other = FakeCommands(
        planned, run_options(rounds=1, target_spacing=(2.0, 1.0, 1.0), selection=("--quantile", "0.4"))
    )
    assert go(other) == ["sfr_plan_and_preprocess", "sfr_select --round --quantile"]


def test_a_planner_that_is_asked_for_is_said(planned: SFRDataset) -> None:
    """nnU-Net's own, too: planning would keep the one that made the plans of this name."""
    fake = FakeCommands(planned, run_options(planner="ExperimentPlanner", plans="nnUNetPlansCPU"))
    run_steps(fake.project.options, "sfr_run", fake)
    assert fake.lines[0] == "sfr_plan_and_preprocess -d 42 -c 3d_fullres -pl ExperimentPlanner -p nnUNetPlansCPU"


def test_adaptation_and_checkpoint_are_handed_to_planning(
    planned: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "sam.pth"
    fake = FakeCommands(planned, run_options(sam="mobile_sam", adaptation="decoder", checkpoint=str(weights)))
    run_steps(fake.project.options, "sfr_run", fake)
    assert fake.lines[0] == (
        "sfr_plan_and_preprocess -d 42 -c 3d_fullres -pl ExperimentPlannerCPU -sam mobile_sam -adaptation decoder "
        f"-checkpoint {weights}"
    )
    assert go(FakeCommands(planned, run_options())) == [], "options that are left out change nothing"
    monkeypatch.chdir(tmp_path)
    assert go(FakeCommands(planned, run_options(checkpoint="sam.pth"))) == [], "the same file"
    again = ["sfr_plan_and_preprocess", "sfr_finetune --overwrite", "sfr_pseudolabel --overwrite"]
    assert go(FakeCommands(planned, run_options(adaptation="few_shot"))) == again
    # labels follow if the adapter does, which here is the same
    assert go(FakeCommands(planned, run_options(checkpoint="other.pth"))) == again[:2]
    assert go(FakeCommands(planned, run_options(checkpoint="other.pth"))) == []


def test_weights_that_were_moved_repeat_nothing(planned: SFRDataset, tmp_path: Path) -> None:
    """Their content counts; records of version 0.2.0 have the path, too."""
    weights, moved = tmp_path / "sam.pth", tmp_path / "elsewhere" / "sam.pth"
    weights.write_bytes(b"weights")
    change_settings(planned, {"sam": {"model": "mobile_sam", "adaptation": "decoder", "checkpoint": str(weights)}})
    fake = FakeCommands(planned, run_options())
    assert go(fake) == SFR_STEPS
    file = fake.project.options.paths.state
    content = json.loads(file.read_text(encoding="utf-8"))
    with_path = HashCache(tmp_path / "hashes.json").digests(sam_part_of_earlier_versions(fake.project))
    for name in ("fine-tune", "pseudo-label"):
        assert content["steps"][name]["inputs"] != content["steps"][name]["inputs"] | with_path
        content["steps"][name]["inputs"] |= with_path
    file.write_text(json.dumps(content), encoding="utf-8")
    assert go(fake) == []
    moved.parent.mkdir()
    weights.rename(moved)
    change_settings(planned, {"sam": {"checkpoint": str(moved)}})
    assert go(fake) == []
    change_settings(planned, {"sam": {"window": [0.0, 1.0]}})
    assert go(fake)[:2] == ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite"]


@pytest.mark.parametrize("option", ["adaptation", "checkpoint"])
def test_a_plan_by_hand_is_made_again_where_one_of_them_is_asked_for(option: str, planned: SFRDataset) -> None:
    """Its options are unknown; the command keeps what fits."""
    assert go(FakeCommands(planned, run_options(**{option: "other"})))[0] == "sfr_plan_and_preprocess"


def test_the_sam_that_the_plan_has_is_no_reason_to_plan_again(planned: SFRDataset) -> None:
    asked = {"sam": "vit_tiny", "adaptation": "full"}
    assert go(FakeCommands(planned, run_options(**asked))) == SFR_STEPS
    assert go(FakeCommands(planned, run_options())) == []
    assert go(FakeCommands(planned, run_options(**asked))) == [], "nor after a run that was not asked for one"


def test_a_planning_by_hand_with_another_sam_does_not_hide_the_one_that_is_asked_for(planned: SFRDataset) -> None:
    asked = FakeCommands(planned, run_options(sam="mobile_sam"))
    assert go(asked) == ["sfr_plan_and_preprocess", *SFR_STEPS]
    change_settings(planned, {"sam": {"model": "vit_b"}})
    assert go(asked) == ["sfr_plan_and_preprocess"], "after which SAM is the one that was fine-tuned"
    assert go(asked) == []


def test_a_plan_that_was_cut_short_is_made_again(planned: SFRDataset) -> None:
    """nnU-Net writes its plan in place, and its planner reads the one that is there."""
    fake = FakeCommands(planned, run_options(target_spacing=(1.0, 1.0, 1.0)))
    whole = planned.paths.plans_file.read_text(encoding="utf-8")
    fake.raising = {"sfr_plan_and_preprocess": InterruptedRunError(9)}
    with pytest.raises(InterruptedRunError):
        go(fake)
    planned.paths.plans_file.write_text(whole[:100])
    with pytest.raises(InterruptedRunError):
        go(fake)
    assert not planned.paths.plans_file.exists()
    planned.paths.plans_file.write_text(whole)
    fake.raising = {}
    fake.taken()
    assert go(fake)[0] == "sfr_plan_and_preprocess"
    planned.paths.plans_file.write_text(whole[:100])
    with pytest.raises(UserError, match=r"nnUNetPlansCPU\.json: cannot be read as JSON .*run sfr_plan_and_preprocess"):
        go(fake)
    assert planned.paths.plans_file.exists(), "a slip of the user's editor is not ours to delete"


def test_a_fold_has_its_own_cases(planned: SFRDataset) -> None:
    with pytest.raises(UserError, match="fold 1 cannot exist"):
        go(FakeCommands(planned, run_options(fold=1)))
    splits = [{"train": ["train_00", "train_01"], "val": ["train_02"]}, {"train": ["train_02"], "val": ["train_00"]}]
    file = planned.paths.preprocessed / "splits_final.json"
    file.write_text(json.dumps(splits))
    fake = FakeCommands(planned, run_options(fold=1))
    assert go(fake) == SFR_STEPS
    assert "-f 1" in state(fake)["fine-tune"]["command"]  # type: ignore[operator]
    splits[0]["val"] = ["train_00", "train_02"]
    file.write_text(json.dumps(splits))
    assert go(fake) == []
    splits[1]["val"] = ["train_00", "train_01"]
    file.write_text(json.dumps(splits))
    assert go(fake) == ["sfr_finetune --overwrite", TRAIN]


def test_folds_of_the_raw_data_that_are_changed_later_end_the_run(planned: SFRDataset) -> None:
    paths = planned.paths
    for folder, case in ((paths.raw, "train_00"), (paths.preprocessed, "train_01")):
        (folder / paths.splits_file.name).write_text(json.dumps([{"train": [case], "val": ["train_02"]}]))
    fake = FakeCommands(planned, run_options(fold=0))
    with pytest.raises(UserError, match="its fold 0 is another one than in"):
        fake.project.check()
    FakeCommands(planned, run_options()).project.check()  # fold all takes every case


def test_folds_are_made_for_the_first_run_on_one(planned: SFRDataset) -> None:
    for number in (3, 4):  # nnU-Net's rule makes folds of five cases and more
        for file in list(planned.paths.labelled.glob("train_00*")):
            shutil.copy2(file, file.with_name(file.name.replace("train_00", f"train_0{number}")))
    shutil.rmtree(planned.paths.raw)
    assert go(FakeCommands(planned, run_options(fold=0))) == SFR_STEPS
    splits = json.loads(planned.paths.splits_file.read_text(encoding="utf-8"))
    assert [sorted(fold["train"] + fold["val"]) for fold in splits] == [[f"train_0{case}" for case in range(5)]] * 5


def test_rounds_follow_each_other_and_can_be_added(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(rounds=1, epochs=5))
    assert go(fake) == [*SFR_STEPS, *ROUND]
    more = FakeCommands(planned, run_options(rounds=2, epochs=5))
    run_steps(more.project.options, "sfr_run", more)
    case = "-d 42 -c 3d_fullres -f all -p nnUNetPlansCPU --round 2"
    assert more.lines == [
        f"sfr_pseudolabel {case} -device cpu -tr nnUNetTrainerSFRPlus_MT_5epochs",
        f"sfr_select {case}",
        f"sfr_finetune {case} -device cpu",
        f"sfr_pseudolabel {case} -device cpu",
        "nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFRPlus_MT_round2_5epochs -p nnUNetPlansCPU -device cpu",
    ]
    assert more.project.options.paths == fake.project.options.paths


def test_a_choice_by_hand_stays(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options(rounds=1))
    go(fake)
    manifest = json.loads((fake.project.store(1, of_model=True) / "manifest.json").read_text(encoding="utf-8"))
    by_hand = {"high": [], "low": [], "model": manifest["made_by"], "overruled": {"low": ["unlabelled_00"]}}
    fake.project.selection(1).write_text(json.dumps(by_hand))
    assert go(fake) == ["sfr_finetune --round --overwrite", TRAIN]
    assert json.loads(fake.project.selection(1).read_text(encoding="utf-8")) == by_hand


def test_runs_share_their_steps(planned: SFRDataset) -> None:
    go(FakeCommands(planned, run_options()))
    assert go(FakeCommands(planned, run_options(method="ACMT"))) == [TRAIN]
    plus = FakeCommands(planned, run_options(rounds=1))
    assert go(plus) == ROUND
    assert state(plus)["train"]["attempts"] == 1, "the training of round 0, taken from the run of SFR"


def test_what_another_run_has_changed_is_known(planned: SFRDataset) -> None:
    """Two runs on one SAM, under two settings: the record of the last attempt counts, whoever made it."""
    first, second = FakeCommands(planned, run_options()), FakeCommands(planned, run_options(method="ACMT"))
    go(first)
    before = planned.paths.sfr_plans_file.read_text(encoding="utf-8")
    change_settings(planned, {"fine_tuning": {"seed": 7}})
    second.content = "second"
    assert go(second) == ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite", TRAIN]
    planned.paths.sfr_plans_file.write_text(before)
    assert go(first) == ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite"], "the training was of these labels"


def test_a_missing_validation_is_made_up_for(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    summary = fake.project.training("nnUNetTrainerSFR_MT") / "validation" / "summary.json"
    summary.unlink()
    assert go(fake) == [f"{TRAIN} --val"]
    set_time(summary, time.time() - 1000)
    assert go(fake) == [], "copied files have times in any order"
    summary.write_text("of an older model")
    set_time(summary, time.time() - 1000)
    assert go(fake) == [f"{TRAIN} --val"]


def test_killed_while_it_validated(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    training = fake.project.training("nnUNetTrainerSFR_MT")
    fake.raising = {TRAIN: InterruptedRunError(15)}
    with pytest.raises(InterruptedRunError):
        go(fake)
    for name in ("final", "teacher"):
        (training / f"checkpoint_{name}.pth").write_text(name)
    fake.raising = {}
    fake.taken()
    assert go(fake) == [f"{TRAIN} --val"], "the training itself was through"


def test_predictions_are_made_from_the_start(planned: SFRDataset, tmp_path: Path) -> None:
    images = planned.paths.raw / "imagesTs"
    options = run_options(images=images, predictions=tmp_path / "predictions", processes=2)
    fake = FakeCommands(planned, options)
    fake.failing = {"nnUNetv2_predict": 1}
    with pytest.raises(StepError):
        go(fake)
    fake.failing = {}
    fake.lines.clear()
    run_steps(options, "sfr_run", fake)
    folders = f"-i {images} -o {tmp_path / 'predictions'}"
    model = "-d 42 -c 3d_fullres -f all -tr nnUNetTrainerSFR_MT -p nnUNetPlansCPU"
    assert fake.lines == [f"nnUNetv2_predict {folders} {model} -device cpu -npp 2 -nps 2"]
    fake.taken()
    assert go(fake) == []


def test_predictions_that_were_corrected_by_hand_stay(
    planned: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeCommands(planned, run_options(images=planned.paths.raw / "imagesTs", predictions=tmp_path / "out"))
    go(fake)
    corrected = fake.project.predicted_files()[0]
    corrected.write_text("corrected")
    assert go(fake) == []
    assert "predict: predict the images: done (changed by hand, left alone)" in capsys.readouterr().out
    assert go(fake) == []
    assert corrected.read_text(encoding="utf-8") == "corrected"
    corrected.unlink()
    assert go(fake) == ["nnUNetv2_predict"]
    change_settings(planned, {"retraining": {"seed": 7}})
    fake.content = "second"
    assert go(fake) == [TRAIN, "nnUNetv2_predict"], "of another model"


# --- trainings without a record ---------------------------------------------------------------------------


def train_by_hand(fake: FakeCommands, *, began: str = "2100_01_01_00_00_00", **changes: object) -> Path:
    """What nnUNetv2_train leaves, stopped between two epochs."""
    dataset, trainer = fake.dataset, "nnUNetTrainerSFR_MT"
    training = fake.project.training(trainer)
    training.mkdir(parents=True)
    (training / "checkpoint_latest.pth").write_text("by hand")
    (training / f"training_log_{began}.txt").touch()
    plans = json.loads(dataset.paths.plans_file.read_text(encoding="utf-8"))
    (training.parent / "plans.json").write_text(json.dumps({**plans, "continue_training": False}))
    settings = {"trainer": trainer, **dataset.settings.to_dict(), **changes}
    (training / "sfr_settings.json").write_text(json.dumps(settings))
    return training


def test_a_training_by_hand_of_the_same_data_and_settings_is_gone_on_with(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    train_by_hand(fake)
    change_settings(planned, {"retraining": {"magicnet": {"cubes_per_axis": 2}}})
    assert go(fake) == ["sfr_finetune", "sfr_pseudolabel", f"{TRAIN} --c"], "this method has no cubes"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer": "nnUNetTrainerSFR_ACMT"}, "does not say that it is one of nnUNetTrainerSFR_MT"),
        ({"retraining": {"epochs": 3}}, "retraining in its sfr_settings.json is not"),
        ({"began": "2020_01_01_00_00_00"}, "has changed since it began"),
    ],
)
def test_any_other_training_by_hand_is_left_alone(changes: dict[str, str], reason: str, planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    training = train_by_hand(fake, **changes)
    with pytest.raises(UserError, match=f"no record of, and .*{reason}"):
        go(fake)
    assert (training / "checkpoint_latest.pth").read_text(encoding="utf-8") == "by hand"


# --- empty pseudo-labels ---


@pytest.mark.parametrize(
    ("class_voxels", "said"),
    [
        ({"0": 99, "1": 0}, "1 of 1 classes found in none of the 2 cases: .*; no foreground in 2 of 2 cases"),
        ({"0": 99}, "no foreground in 2 of 2 cases: unlabelled_00, unlabelled_01"),
    ],
)
def test_empty_pseudo_labels_stop_the_run_before_it_trains(
    class_voxels: dict[str, int], said: str, planned: SFRDataset
) -> None:
    fake = FakeCommands(planned, run_options())
    fake.record = {"class_voxels": class_voxels}
    for _ in range(2):
        with pytest.raises(UserError, match=rf"round_0: .*{said}.* repeat the command with --accept-empty-labels"):
            go(fake)
    assert fake.taken() == ["sfr_finetune", "sfr_pseudolabel"]
    accepting = FakeCommands(planned, run_options(accept_empty_labels=True))
    accepting.failing = {TRAIN: 3}
    with pytest.raises(StepError):
        go(accepting)
    assert accepting.taken() == [TRAIN]
    assert go(fake) == [f"{TRAIN} --c"], "what was accepted once is not asked about again"


def test_empty_pseudo_labels_do_not_cost_an_earlier_model(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    change_settings(planned, {"fine_tuning": {"seed": 7}})
    fake.content, fake.record = "second", {"class_voxels": {"0": 99, "1": 0}}
    with pytest.raises(UserError, match="no foreground in 2 of 2 cases"):
        go(fake)
    student = fake.project.training("nnUNetTrainerSFR_MT") / "checkpoint_final.pth"
    assert "first" in student.read_text(encoding="utf-8")


# --- weights of SAM ---


def test_weights_that_are_replaced_in_place_are_noticed(planned: SFRDataset, tmp_path: Path) -> None:
    weights = tmp_path / "sam.pth"
    weights.write_bytes(b"first")
    change_settings(planned, {"sam": {"model": "mobile_sam", "adaptation": "decoder", "checkpoint": str(weights)}})
    fake = FakeCommands(planned, run_options())
    assert go(fake) == SFR_STEPS
    weights.write_bytes(b"other")
    fake.content = "second"
    assert go(fake) == ["sfr_finetune --overwrite", "sfr_pseudolabel --overwrite", TRAIN]
    assert go(fake) == []


def test_an_adapter_that_knows_its_weights_is_not_made_again(planned: SFRDataset, tmp_path: Path) -> None:
    """Runs of earlier versions recorded nothing of the file."""
    weights = tmp_path / "sam.pth"
    weights.write_bytes(b"first")
    change_settings(planned, {"sam": {"model": "mobile_sam", "adaptation": "decoder", "checkpoint": str(weights)}})
    step = FineTune(Project(run_options()))
    assert not step.has_taken_in([SAM_WEIGHTS]), "there is no adapter"
    adapter = step.project.adapter(0)
    adapter.parent.mkdir(parents=True, exist_ok=True)
    for made_with, expected in ((b"first", True), (b"other", False)):
        metadata = {"weights_sha256": hashlib.sha256(made_with).hexdigest()}
        save_file({"weight": np.zeros(1)}, adapter, metadata=metadata)
        assert step.has_taken_in([SAM_WEIGHTS]) is expected
        assert not step.has_taken_in([SAM_WEIGHTS, "fold"])
    adapter.write_bytes(b"no adapter")
    assert not step.has_taken_in([SAM_WEIGHTS])


# --- earlier results ---


def test_an_earlier_result_is_kept_until_there_is_a_new_one(planned: SFRDataset) -> None:
    fake = FakeCommands(planned, run_options())
    go(fake)
    project, training = fake.project, fake.project.training("nnUNetTrainerSFR_MT")
    kept = {"sfr_finetune": project.adapter(0).parent, "sfr_pseudolabel": project.store(0), TRAIN: training}
    change_settings(planned, {"fine_tuning": {"seed": 7}})
    fake.content = "second"
    for name, result in kept.items():
        fake.failing = {name: 3}
        earlier = result.parent / ".earlier" / result.name
        for _ in range(2):
            with pytest.raises(StepError, match=f"the earlier result is kept in {re.escape(str(earlier))}$"):
                go(fake)
        assert any("first" in file.read_text(encoding="utf-8") for file in earlier.iterdir() if file.is_file())
    fake.failing = {}
    go(fake)
    assert not any((result.parent / ".earlier").exists() for result in kept.values())
    assert go(fake) == []


def test_the_sams_of_all_axes_are_set_aside(planned: SFRDataset) -> None:
    """Left in its place, one of other settings would stop the command that is to continue."""
    fake = FakeCommands(planned, run_options())
    go(fake)
    further = fake.project.adapter(0).parents[1] / "across_2" / "round_0"
    further.mkdir(parents=True)
    (further / "adapter_final.safetensors").write_text("first")
    change_settings(planned, {"fine_tuning": {"seed": 7}})
    fake.raising = {"sfr_finetune": InterruptedRunError(9)}
    with pytest.raises(InterruptedRunError):
        go(fake)
    assert not further.exists()
    assert (further.parent / ".earlier" / "round_0" / "adapter_final.safetensors").is_file()
    fake.raising = {}
    go(fake)
    assert not list(further.parent.iterdir())


def test_predictions_that_another_model_has_replaced_are_made_again(
    planned: SFRDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """nnU-Net leaves its arguments whenever it begins, whatever the model."""
    fake = FakeCommands(planned, run_options(images=planned.paths.raw / "imagesTs", predictions=tmp_path / "out"))
    go(fake)
    ours = fake.project.predicted_files()[0]
    of_ours = ours.read_text(encoding="utf-8")
    ours.write_text("another model's")
    set_time(ours.with_name("predict_from_raw_data_args.json"), time.time() + 3600)
    assert go(fake) == ["nnUNetv2_predict"]
    assert "predict the images (others have been written over its result)" in capsys.readouterr().out
    assert ours.read_text(encoding="utf-8") == of_ours
    assert go(fake) == []
