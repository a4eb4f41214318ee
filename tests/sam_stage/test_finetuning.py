"""Fine-tuning on a tiny project: the schedule, the loss that a step takes, exact resume, and what is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.doctor.stages import check_adapter
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import BEST_ADAPTER, FINAL_ADAPTER, FINAL_OPTIMIZER, FINE_TUNING_STATE
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.replacement import finish_replacement, new_folder
from nnunet_sfr.sam_stage import finetuning, finetuning_run
from nnunet_sfr.sam_stage.examples import CanvasLogits
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.finetuning_run import FineTuningRun, learning_rate
from nnunet_sfr.sam_stage.labelled_canvas import target_labels
from nnunet_sfr.sam_stage.model import (
    build_stitched_sam,
    load_adapter,
    save_adapter,
)
from nnunet_sfr.sam_stage.prediction import VolumePredictor
from nnunet_sfr.sam_stage.validation import mean_foreground_dice
from nnunet_sfr.settings import FineTuningSettings
from tests.conftest import Golden
from tests.sam_stage.interrupted_steps import interrupted_at_step
from tests.tiny_project import change_settings

CPU = torch.device("cpu")


def test_learning_rate_equals_the_authors(golden: Callable[[str], Golden]) -> None:
    losses = golden("losses")
    settings = FineTuningSettings(iterations=6000, warmup_fraction=0.0)
    # step i, counted from 0, uses (1 - i / T) ** 0.9
    ours = [learning_rate(int(step), settings) for step in losses["lr.sfr_sam_finetune_iter"]]
    np.testing.assert_allclose(ours, losses["lr.sfr_sam_finetune"], rtol=0, atol=1e-12)


def test_warm_up_is_linear_and_the_last_step_is_not_zero() -> None:
    settings = FineTuningSettings(iterations=1000, warmup_fraction=0.01, learning_rate=1.0, poly_exponent=1.0)
    assert learning_rate(0, settings) == pytest.approx(0.1)
    assert learning_rate(4, settings) == pytest.approx(0.5 * (1 - 4 / 1000))
    assert learning_rate(9, settings) == pytest.approx(1 - 9 / 1000)
    assert learning_rate(999, settings) == pytest.approx(1 / 1000)


def test_ignored_labels_leave_the_target() -> None:
    target = torch.tensor([0, 1, 2, 1]).view(1, 1, 1, 1, 4).to(torch.int16)
    assert target_labels(target, ignore_label=2).flatten().tolist() == [0, 1, -1, 1]
    assert target_labels(target, ignore_label=None).flatten().tolist() == [0, 1, 2, 1]


def test_a_run_leaves_adapters_and_a_log(project: SFRDataset) -> None:
    folder = fine_tune(project, "all", CPU)
    assert folder == project.paths.sam_stage("all")
    assert {file.name for file in folder.iterdir()} == {
        BEST_ADAPTER,
        FINAL_ADAPTER,
        FINAL_OPTIMIZER,
        "fine_tuning_log.json",
    }
    log = json.loads((folder / "fine_tuning_log.json").read_text(encoding="utf-8"))
    assert [entry["iteration"] for entry in log] == [2, 4]
    assert all(0 < entry["loss"] < 2 for entry in log)


def test_training_learns(project: SFRDataset) -> None:
    """Thirty steps lower the loss clearly, so gradients reach what they should."""
    change_settings(project, {"fine_tuning": {"iterations": 30, "validation_every": 15}})
    log = json.loads((fine_tune(_reopened(project), "all", CPU) / "fine_tuning_log.json").read_text(encoding="utf-8"))
    assert log[1]["loss"] < 0.8 * log[0]["loss"]


@pytest.mark.parametrize("adaptation", ["full", "decoder", "few_shot", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(
    adaptation: str, project: SFRDataset, request: pytest.FixtureRequest
) -> None:
    if adaptation != "full":
        project = request.getfixturevalue("pretrained_project")
        change_settings(project, {"sam": {"adaptation": adaptation}})
        project = _reopened(project)
    folder = fine_tune(project, "all", CPU)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    undisturbed = load_file(folder / FINAL_ADAPTER)
    with interrupted_at_step(4):
        fine_tune(project, "all", CPU, overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before, "a good result outlives a bad attempt"
    assert (new_folder(folder) / FINE_TUNING_STATE).is_file()

    seed_everything(99)  # whatever the generators were doing in the new process
    step = FineTuningRun.step
    with mock.patch.object(FineTuningRun, "step", autospec=True, side_effect=step) as remaining:
        resumed = load_file(fine_tune(project, "all", CPU, overwrite=True) / FINAL_ADAPTER)
    assert remaining.call_count == 2, "from the state of iteration 2"
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]
    assert resumed.keys() == undisturbed.keys()
    for name, value in undisturbed.items():
        assert torch.equal(resumed[name], value), name


def test_a_finished_run_is_left_alone(project: SFRDataset, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = fine_tune(project, "all", CPU) / FINAL_ADAPTER
    before = adapter.stat().st_mtime_ns
    fine_tune(project, "all", CPU)
    assert adapter.stat().st_mtime_ns == before
    assert "--overwrite starts again" in capsys.readouterr().out


def test_resuming_with_other_settings_is_refused(project: SFRDataset) -> None:
    folder = project.paths.sam_stage("all")
    with (
        mock.patch.object(finetuning_run, "save_adapter", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        fine_tune(project, "all", CPU)  # dies while it writes the best adapter: no state yet
    assert not (folder / FINE_TUNING_STATE).exists()
    with mock.patch.object(FineTuningRun, "train", lambda run: run.validate_and_save([1.0])):
        fine_tune(project, "all", CPU)
    change_settings(project, {"fine_tuning": {"learning_rate": 0.5}})
    with pytest.raises(UserError, match=r"was written with another fine_tuning\.learning_rate; restore it"):
        fine_tune(_reopened(project), "all", CPU)
    (folder / FINE_TUNING_STATE).write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        fine_tune(project, "all", CPU)


def test_resuming_with_other_settings_deletes_no_views(pretrained_project: SFRDataset) -> None:
    with interrupted_at_step(3):
        fine_tune(pretrained_project, "all", CPU)
    views = pretrained_project.paths.sam_views
    before = {file: file.read_bytes() for file in views.rglob("*.*")}
    assert before
    change_settings(pretrained_project, {"fine_tuning": {"seed": 7}})
    with pytest.raises(UserError, match=r"was written with another fine_tuning\.seed; restore it"):
        fine_tune(_reopened(pretrained_project), "all", CPU)
    assert {file: file.read_bytes() for file in views.rglob("*.*")} == before


def test_a_killed_replacement_is_finished_by_the_first_of_several_processes(project: SFRDataset) -> None:
    """This process, another one, looks at nothing before that."""
    folder = fine_tune(project, "all", CPU)
    adapter = (folder / FINAL_ADAPTER).read_bytes()
    shutil.copytree(folder, new_folder(folder))
    old = folder.parent / ".old" / folder.name
    old.parent.mkdir()
    folder.rename(old)

    def first_process_works() -> None:
        assert old.exists()
        assert not folder.exists()
        finish_replacement(folder)

    second = SimpleNamespace(is_main_process=False, wait_for_everyone=first_process_works)
    with mock.patch.object(finetuning, "start_processes", return_value=second):
        assert fine_tune(project, "all", CPU) == folder
    assert (folder / FINAL_ADAPTER).read_bytes() == adapter
    assert not old.exists()


def test_an_adapter_of_other_settings_is_refused(project: SFRDataset) -> None:
    adapter = fine_tune(project, "all", CPU) / FINAL_ADAPTER
    model = build_stitched_sam(project)
    load_adapter(model, project, adapter)
    change_settings(project, {"sam": {"window": [0.0, 1.0]}})
    with pytest.raises(UserError, match=r"made with another sam\.window; add --overwrite"):
        fine_tune(_reopened(project), "all", CPU)
    change_settings(project, {"sam": {"window": [-160.0, 240.0]}, "stitching": {"patch_size": [18, 24, 22]}})
    with pytest.raises(UserError, match=r"made for patch_size \[20, 24, 22\], the plan has \[18, 24, 22\]"):
        load_adapter(model, _reopened(project), adapter)
    adapter.write_bytes(adapter.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not a safetensors file"):
        load_adapter(model, project, adapter)
    with pytest.raises(UserError, match="not found; run sfr_finetune first"):
        load_adapter(model, project, Path("nowhere.safetensors"))


def test_cases_of_another_spacing_are_refused(project: SFRDataset) -> None:
    plans = json.loads(project.paths.plans_file.read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
    project.paths.plans_file.write_text(json.dumps(plans))
    sfr_plans = json.loads(project.paths.sfr_plans_file.read_text(encoding="utf-8"))
    sfr_plans["configurations"]["3d_fullres"]["derived_from"]["spacing"] = [2.0, 2.0, 2.0]
    project.paths.sfr_plans_file.write_text(json.dumps(sfr_plans))
    with pytest.raises(UserError, match="a target spacing changed since; run sfr_plan_and_preprocess again"):
        fine_tune(_reopened(project), "all", CPU)


def test_a_frozen_encoder_embeds_each_view_once(pretrained_project: SFRDataset) -> None:
    """Images pass through the encoder for views and validation, never in a step; the weights learn."""
    change_settings(pretrained_project, {"fine_tuning": {"iterations": 30, "validation_every": 15}})
    project = _reopened(pretrained_project)
    with mock.patch.object(CanvasLogits, "forward", autospec=True) as forward:
        forward.side_effect = lambda self, inputs: self.model.sam.decode(inputs)
        folder = fine_tune(project, "all", CPU)
    shapes = {call.args[1].shape[1:] for call in forward.call_args_list}
    assert shapes == {build_stitched_sam(project).sam.embedding_shape}
    log = json.loads((folder / "fine_tuning_log.json").read_text(encoding="utf-8"))
    assert log[1]["loss"] < 0.95 * log[0]["loss"]
    assert not any(name.startswith("image_encoder") for name in load_file(folder / FINAL_ADAPTER))
    views = project.paths.sam_views
    before = {file: file.stat().st_mtime_ns for file in views.rglob("*.safetensors")}
    assert before
    fine_tune(project, "all", CPU, overwrite=True)
    assert {file: file.stat().st_mtime_ns for file in views.rglob("*.safetensors")} == before


def test_few_shot_keeps_its_prototypes_with_the_adapter(pretrained_project: SFRDataset) -> None:
    change_settings(pretrained_project, {"sam": {"adaptation": "few_shot"}})
    project = _reopened(pretrained_project)
    adapter = load_file(fine_tune(project, "all", CPU) / FINAL_ADAPTER)
    assert bool(adapter["prompts.collected"])
    assert adapter["prompts.prototypes"].shape == (2, 32)
    assert adapter["prompts.prototypes"].abs().max(dim=1).values.min() > 0, "both classes are shown"
    model = build_stitched_sam(project)
    load_adapter(model, project, project.paths.sam_stage("all") / FINAL_ADAPTER)
    assert model.sam.prompts is not None
    assert model.sam.prompts().shape == (1, 2, 32)


def test_other_weights_are_refused(pretrained_project: SFRDataset) -> None:
    """An adapter changes the weights that it was trained on, and no others."""
    adapter = fine_tune(pretrained_project, "all", CPU) / FINAL_ADAPTER
    checkpoint = Path(str(pretrained_project.settings.sam.checkpoint))
    state = torch.load(checkpoint, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, checkpoint)
    project = _reopened(pretrained_project)
    with pytest.raises(UserError, match=r"made for weights_sha256 [0-9a-f]{64}, the plan has"):
        load_adapter(build_stitched_sam(project), project, adapter)
    with pytest.raises(UserError, match=r"made with another weights_sha256; add --overwrite"):
        fine_tune(project, "all", CPU)
    checkpoint.unlink()
    with pytest.raises(UserError, match=r"small_pretrained\.pth"):
        fine_tune(project, "all", CPU)


def test_weights_may_be_moved(pretrained_project: SFRDataset, tmp_path: Path) -> None:
    """To another disk, or with the project to another machine."""
    adapter = fine_tune(pretrained_project, "all", CPU) / FINAL_ADAPTER
    made = adapter.stat().st_mtime_ns
    moved = tmp_path / "moved.pth"
    Path(str(pretrained_project.settings.sam.checkpoint)).rename(moved)
    change_settings(pretrained_project, {"sam": {"checkpoint": str(moved)}})
    project = _reopened(pretrained_project)
    assert fine_tune(project, "all", CPU) / FINAL_ADAPTER == adapter
    assert adapter.stat().st_mtime_ns == made


def label_anew(project: SFRDataset, case: str) -> None:
    """What planning leaves where the label of a case has been replaced: another provenance."""
    file = project.paths.labelled / f"{case}.pkl"
    properties = pickle.loads(file.read_bytes())
    properties["nnunet_sfr"] = {**properties["nnunet_sfr"], "inputs": "another label"}
    file.write_bytes(pickle.dumps(properties))


def test_a_sam_of_other_labels_is_refused(project: SFRDataset) -> None:
    adapter = fine_tune(project, "all", CPU) / FINAL_ADAPTER
    label_anew(project, "train_01")
    with pytest.raises(UserError, match=r"made with another content_of_case\.train_01; add --overwrite"):
        fine_tune(project, "all", CPU)
    fine_tune(project, "all", CPU, overwrite=True)
    made = adapter.stat().st_mtime_ns
    fine_tune(project, "all", CPU)
    assert adapter.stat().st_mtime_ns == made


def test_voxels_that_cannot_be_read_are_named(project: SFRDataset) -> None:
    file = project.paths.labelled / "train_01_seg.b2nd"
    content = file.read_bytes()
    middle = 6 * len(content) // 10  # of the compressed voxels; opening the file still works
    file.write_bytes(content[:middle] + b"\xff" * 20 + content[middle + 20 :])
    with pytest.raises(UserError, match=r"train_01_seg\.b2nd: damaged \(.*\); delete it and run sfr_plan_and_pre"):
        fine_tune(project, "all", CPU)


def test_a_run_on_other_labels_is_not_continued(project: SFRDataset) -> None:
    with interrupted_at_step(3):
        fine_tune(project, "all", CPU)
    label_anew(project, "train_00")
    with pytest.raises(UserError, match=r"another content_of_case\.train_00"):
        fine_tune(project, "all", CPU)


def test_a_sam_of_version_0_2_0_does_not_know_the_content_of_its_cases(project: SFRDataset) -> None:
    adapter = fine_tune(project, "all", CPU) / FINAL_ADAPTER
    with safe_open(adapter, framework="pt") as content:
        metadata = content.metadata()
    recipe = json.loads(metadata["recipe"])
    assert set(recipe.pop("content_of_case")) == {"train_00", "train_01", "train_02"}
    save_file(load_file(adapter), adapter, {**metadata, "recipe": json.dumps(recipe)})
    made = adapter.stat().st_mtime_ns
    fine_tune(project, "all", CPU)
    assert adapter.stat().st_mtime_ns == made


def test_an_adapter_of_version_0_1_is_read_and_the_doctor_agrees(project: SFRDataset) -> None:
    model = build_stitched_sam(project)
    file = project.paths.sam_stage("all") / FINAL_ADAPTER
    save_adapter(model, project, file)
    state = load_file(file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    for key in ("weights_sha256", "adaptation_settings", "window", "scale", "slice_axis"):
        del metadata[key]
    save_file(state, file, {**metadata, "lora_rank": "None", "nnunet_sfr_version": "0.1.0"})
    load_adapter(build_stitched_sam(project), project, file)
    (finding,) = check_adapter(project, "all")
    assert (finding.level.value, finding.text) == ("ok", str(file))
    save_file(state, file, {**metadata, "lora_rank": "4", "nnunet_sfr_version": "0.1.0"})
    misfit = 'made for adaptation_settings {"rank": 4}, the plan has {}'
    with pytest.raises(UserError, match=re.escape(misfit)):
        load_adapter(build_stitched_sam(project), project, file)
    (finding,) = check_adapter(project, "all")
    assert (finding.level.value, finding.text) == ("problem", f"{file}: {misfit}")


@pytest.mark.parametrize(
    ("diverging", "said"),
    [
        (
            0,
            r"round_0: the loss of iteration 2 is not finite; lower fine_tuning\.learning_rate in the SFR plan and run",
        ),
        (1, r"round_0: weights after iteration 2 are not finite; lower fine_tuning\.learning_rate"),
        (
            2,
            r"the loss of iteration 4 is not finite; the best adapter until then \(iteration 2, Dice [01]\.\d+\) is",
        ),
        (
            3,
            r"weights after iteration 4 are not finite; the best adapter until then \(iteration 2, .*adapter_best\.s",
        ),
    ],
)
def test_numbers_that_are_not_finite_end_with_one_line_and_the_last_good_state(
    diverging: int, said: str, project: SFRDataset
) -> None:
    """Validated and saved after iterations 2 and 4; from iteration ``diverging`` (from 0) steps are infinite."""
    folder = project.paths.sam_stage("all")
    with (
        mock.patch.object(
            finetuning_run, "learning_rate", side_effect=lambda step, _: 1e-4 if step < diverging else np.inf
        ),
        pytest.raises(UserError, match=said),
    ):
        fine_tune(project, "all", CPU)
    assert not (folder / FINAL_ADAPTER).exists()
    assert (folder / FINE_TUNING_STATE).exists() == (folder / BEST_ADAPTER).exists() == (diverging >= 2)
    if diverging >= 2:
        assert all(bool(torch.isfinite(value).all()) for value in load_file(folder / BEST_ADAPTER).values())
        state = torch.load(folder / FINE_TUNING_STATE, weights_only=True)
        assert state["iteration"] == 2
        assert all(bool(torch.isfinite(value).all()) for value in state["adapter"].values())


def test_a_validation_that_is_not_finite_names_its_case(project: SFRDataset) -> None:
    model = build_stitched_sam(project)
    next(model.sam.mask_decoder.parameters()).data.fill_(torch.nan)
    cases = LabelledDataset(str(project.paths.labelled), ["train_01"])
    with pytest.raises(UserError, match=r"^train_01: the prediction has numbers that are not finite"):
        mean_foreground_dice(model, cases, project, CPU)


@pytest.mark.parametrize(
    ("decision", "smoothing", "low", "high"),
    [("expected_dice", 0.0, 1.0, 1.0), ("largest_probability", 0.0, 0.0, 0.0), ("expected_dice", 2.0, 0.8, 0.9)],
)
def test_validation_decides_labels_as_those_of_the_pool_are(
    decision: str, smoothing: float, low: float, high: float, project: SFRDataset
) -> None:
    """SAM finds every voxel of the foreground with a probability of 0.4, and nothing else."""
    change_settings(project, {"pseudo_labels": {"decision": decision, "slice_smoothing": smoothing}})
    dataset = _reopened(project)
    cases = LabelledDataset(str(dataset.paths.labelled), ["train_01"])
    foreground = torch.from_numpy((cases.load_case("train_01")[1][0] == 1).astype(np.float32))
    assert foreground.sum() > 0
    probabilities = torch.stack([1 - 0.4 * foreground, 0.4 * foreground])
    with mock.patch.object(VolumePredictor, "probabilities", return_value=probabilities):
        assert low <= mean_foreground_dice(build_stitched_sam(dataset), cases, dataset, CPU) <= high


def test_a_new_run_that_was_killed_before_it_took_its_place_does(project: SFRDataset) -> None:
    folder = fine_tune(project, "all", CPU)
    with (
        mock.patch.object(finetuning, "replace_folder", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        fine_tune(project, "all", CPU, overwrite=True)
    adapter = new_folder(folder) / FINAL_ADAPTER
    made = adapter.stat().st_mtime_ns
    fine_tune(project, "all", CPU, overwrite=True)
    assert (folder / FINAL_ADAPTER).stat().st_mtime_ns == made


def test_the_sams_of_several_axes_are_replaced_together(project: SFRDataset) -> None:
    """Interrupted in the second, no earlier one is gone, and the next call keeps what the first has done."""
    change_settings(project, {"stitching": {"slice_axes": [1, 0]}})
    project = _reopened(project)
    fine_tune(project, "all", CPU)
    adapters = [plane.paths.sam_stage("all") / FINAL_ADAPTER for plane in project.planes]
    before = [adapter.stat().st_mtime_ns for adapter in adapters]
    finish, finished = FineTuningRun.finish, 0

    def interrupted(run: Any) -> None:
        nonlocal finished
        if finished:
            raise KeyboardInterrupt
        finished += 1
        finish(run)

    with mock.patch.object(FineTuningRun, "finish", interrupted), pytest.raises(KeyboardInterrupt):
        fine_tune(project, "all", CPU, overwrite=True)
    assert [adapter.stat().st_mtime_ns for adapter in adapters] == before
    with mock.patch.object(FineTuningRun, "step", side_effect=AssertionError("both runs have taken all steps")):
        fine_tune(project, "all", CPU, overwrite=True)
    assert all(adapter.stat().st_mtime_ns > time for adapter, time in zip(adapters, before, strict=True))


def test_a_new_run_of_other_settings_is_not_continued(project: SFRDataset) -> None:
    folder = fine_tune(project, "all", CPU)
    with (
        mock.patch.object(FineTuningRun, "finish", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        fine_tune(project, "all", CPU, overwrite=True)
    assert (new_folder(folder) / FINE_TUNING_STATE).is_file()
    change_settings(project, {"fine_tuning": {"seed": 7}})
    with mock.patch.object(FineTuningRun, "step", autospec=True, side_effect=FineTuningRun.step) as steps:
        fine_tune(_reopened(project), "all", CPU, overwrite=True)
    assert steps.call_count == 4


def test_a_fold_that_cannot_exist_is_refused(project: SFRDataset) -> None:
    with pytest.raises(
        UserError, match="fold 2 cannot exist: 5-fold cross-validation needs 5 labelled cases and there are 3"
    ):
        fine_tune(project, 2, CPU)


def test_overwriting_waits_until_the_new_run_can_start(project: SFRDataset) -> None:
    adapter = fine_tune(project, "all", CPU) / FINAL_ADAPTER
    before = adapter.read_bytes()
    with (
        mock.patch.object(finetuning_run, "build_stitched_sam", side_effect=UserError("no such checkpoint")),
        pytest.raises(UserError, match="no such checkpoint"),
    ):
        fine_tune(project, "all", CPU, overwrite=True)
    assert adapter.read_bytes() == before


def _reopened(project: SFRDataset) -> SFRDataset:
    """The project with its settings read again."""
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)
