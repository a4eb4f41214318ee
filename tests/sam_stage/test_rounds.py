"""SFR+ rounds of SAM: what they continue from, whom they learn from with which labels, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nnunet_sfr.confidence import agreement
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.voxel_confidence import write_voxel_confidence
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.paths import FINAL_ADAPTER, FINAL_OPTIMIZER
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.sam_stage import finetuning_run
from nnunet_sfr.sam_stage.adaptation import adapter_state
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.finetuning_run import FineTuningRun
from nnunet_sfr.sam_stage.model import build_stitched_sam, save_adapter
from nnunet_sfr.sam_stage.patches import labelled_patches
from nnunet_sfr.sam_stage.pseudo_labelling import pseudo_label
from nnunet_sfr.sam_stage.recipe import fine_tuning_recipe
from nnunet_sfr.sam_stage.rounds import continue_from, open_round, round_settings, sampling_probabilities
from nnunet_sfr.selection import select
from nnunet_sfr.settings import FineTuningSettings
from tests.later_round import BY_FLIPS, HIGH, LOW, scripted_round
from tests.sam_stage.interrupted_steps import interrupted_at_step
from tests.tiny_project import change_settings

CPU = torch.device("cpu")


def reopened(project: SFRDataset) -> SFRDataset:
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)


@pytest.fixture
def second_round(project: SFRDataset) -> SFRDataset:
    """SAM is fine-tuned, and round 1 is scripted: one case is high, the other low."""
    fine_tune(project, "all", CPU)
    scripted_round(project)
    return project


def test_a_round_is_shorter_and_draws_other_patches() -> None:
    settings = FineTuningSettings(iterations=1000, warmup_fraction=0.1, seed=5)
    later = round_settings(settings, 0.25, 2)
    assert (later.iterations, later.warmup_iterations, later.seed) == (250, 25, 7)
    assert round_settings(FineTuningSettings(iterations=1, warmup_fraction=0.0), 0.1, 1).iterations == 1


def test_labelled_cases_have_their_share_of_the_patches() -> None:
    chances = sampling_probabilities(2, 8, 0.5)
    assert sum(chances) == pytest.approx(1.0)
    assert sum(chances[:2]) == pytest.approx(0.5)
    assert len(set(chances[2:])) == 1


def test_sam_learns_from_labelled_and_high_cases_with_the_models_labels(second_round: SFRDataset) -> None:
    """Of the batches that arrive: the high case is all foreground, as the scripted model says; the low one stays away.

    Half of the patches are the high case's, though it is one of four.
    """
    this_round = open_round(second_round, "all", 1)
    seed_everything(0)
    batches = labelled_patches(
        second_round,
        this_round.cases,
        batch_size=2,
        sampling_probabilities=this_round.sampling_probabilities,
        processes=0,
        pin_memory=False,
    )
    drawn: dict[str, list[float]] = {}
    for _ in range(20):
        batch = next(batches)
        for case, target in zip(batch["keys"], batch["target"], strict=True):
            drawn.setdefault(case, []).append(float((target > 0).float().mean()))
    assert set(drawn) == {"train_00", "train_01", "train_02", HIGH}
    assert 10 <= len(drawn[HIGH]) <= 30
    foreground_of_the_truth = max(max(shares) for case, shares in drawn.items() if case != HIGH)
    assert 1.5 * foreground_of_the_truth < min(drawn[HIGH]), (
        "patches are larger than the case, so not all is foreground"
    )


def test_without_high_cases_the_labelled_ones_are_left(second_round: SFRDataset) -> None:
    select(second_round, "all", 1, BY_FLIPS, overrule_low=[HIGH])
    this_round = open_round(second_round, "all", 1)
    assert list(this_round.cases.identifiers) == ["train_00", "train_01", "train_02"]
    assert this_round.sampling_probabilities is None


def test_a_round_goes_on_from_adapter_and_optimiser(second_round: SFRDataset) -> None:
    started: list[Any] = []

    def keep(run: Any) -> None:
        started.append(run)

    with mock.patch.object(FineTuningRun, "train", keep):
        fine_tune(second_round, "all", CPU, round_index=1)
    [run] = started
    folder = second_round.paths.sam_stage("all")
    before = load_file(folder / FINAL_ADAPTER)
    now = adapter_state(run.model.sam)
    assert now.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(now[name], value), name
    saved = torch.load(folder / FINAL_OPTIMIZER, weights_only=True)["optimizer"]["state"]
    moments = run.optimizer.state_dict()["state"]
    assert moments.keys() == saved.keys()
    assert len(saved) > 0
    for index, state in saved.items():
        assert state["step"] == 4
        for key, value in state.items():
            assert torch.equal(moments[index][key], value)
    assert run.settings.iterations == 2, "half of round 0's"
    assert run.folder == second_round.paths.sam_stage("all", 1)


def test_a_round_takes_the_optimisers_settings_of_today(second_round: SFRDataset) -> None:
    change_settings(second_round, {"fine_tuning": {"betas": [0.8, 0.9], "weight_decay": 0.25}})
    project = reopened(second_round)
    model = build_stitched_sam(project)
    optimizer = finetuning_run._optimizer(model, project.settings.fine_tuning)
    continue_from(project.paths.sam_stage("all"), model, optimizer, project)
    assert [(group["betas"], group["weight_decay"]) for group in optimizer.param_groups] == [((0.8, 0.9), 0.25)]
    assert {state["step"].item() for state in optimizer.state.values()} == {4}


def test_a_resumed_round_ends_with_the_same_weights(second_round: SFRDataset) -> None:
    change_settings(second_round, {"rounds": {"fine_tuning_fraction": 1.0}})
    project = reopened(second_round)
    folder = fine_tune(project, "all", CPU, round_index=1)
    undisturbed = load_file(folder / FINAL_ADAPTER)
    first = load_file(project.paths.sam_stage("all") / FINAL_ADAPTER)
    assert any(not torch.equal(undisturbed[name], value) for name, value in first.items())
    with interrupted_at_step(4):
        fine_tune(project, "all", CPU, round_index=1, overwrite=True)
    before = (folder / FINAL_ADAPTER).stat().st_mtime_ns
    seed_everything(99)
    resumed = load_file(fine_tune(project, "all", CPU, round_index=1, overwrite=True) / FINAL_ADAPTER)
    assert (folder / FINAL_ADAPTER).stat().st_mtime_ns > before
    for name, value in undisturbed.items():
        assert torch.equal(resumed[name], value), name


def test_another_choice_is_another_round(second_round: SFRDataset) -> None:
    fine_tune(second_round, "all", CPU, round_index=1)
    select(second_round, "all", 1, BY_FLIPS, overrule_high=[LOW])
    with pytest.raises(UserError, match="made with another high; add --overwrite"):
        fine_tune(second_round, "all", CPU, round_index=1)
    change_settings(second_round, {"rounds": {"labelled_fraction": 0.25}})
    with pytest.raises(UserError, match=r"made with another rounds\.labelled_fraction; add --overwrite"):
        fine_tune(reopened(second_round), "all", CPU, round_index=1)


def test_settings_of_other_steps_leave_a_finished_round_as_it_is(
    second_round: SFRDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapters of earlier versions hold settings of SFR+ that fine-tuning does not read."""
    this_round = open_round(second_round, "all", 1)
    earlier = {**second_round.settings.to_dict()["rounds"]}
    del earlier["model_share"]
    this_round = replace(this_round, recipe={**this_round.recipe, "rounds": earlier})
    recipe = fine_tuning_recipe(second_round, "all", this_round)
    file = second_round.paths.sam_stage("all", 1) / FINAL_ADAPTER
    file.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(build_stitched_sam(second_round), second_round, file, recipe=recipe)
    change_settings(second_round, {"rounds": {"retraining_fraction": 0.25, "high_fraction": 0.25}})
    fine_tune(reopened(second_round), "all", CPU, round_index=1)
    assert f"{file} is complete" in capsys.readouterr().out


def test_rounds_out_of_order_are_refused(project: SFRDataset) -> None:
    def refused(said: str, round_index: int = 1) -> None:
        with pytest.raises(UserError, match=said):
            fine_tune(project, "all", CPU, round_index=round_index)
        assert not project.paths.sam_stage("all", round_index).exists()

    refused("round_0/adapter_final.safetensors: not found; run sfr_finetune first")
    refused("round_1/adapter_final.safetensors: not found; run sfr_finetune --round 1 first", round_index=2)
    fine_tune(project, "all", CPU)
    refused("round_1_selection.json: not found; run sfr_select")
    scripted_round(project)
    store = PseudoLabelStore.open(project.paths.model_pseudo_labels("all", 1), grid=project.grid)
    manifest = store.folder / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"scripted"', '"another"'))
    refused("were made again since; run sfr_select --round 1 again")
    manifest.write_text(text)
    optimizer = project.paths.sam_stage("all") / FINAL_OPTIMIZER
    content = torch.load(optimizer, weights_only=True)
    torch.save({**content, "recipe": "another"}, optimizer)
    refused("belongs to another run than the adapter beside it")
    optimizer.write_bytes(b"broken")
    refused(r"optimizer_final\.pt: cannot be read")
    optimizer.unlink()
    refused(r"optimizer_final\.pt: not found; run sfr_finetune --overwrite for that round")


def test_every_round_has_a_store_of_its_own(second_round: SFRDataset) -> None:
    first = second_round.paths.pseudo_labels("all")
    before = {file.name: file.stat().st_mtime_ns for file in first.iterdir()}
    fine_tune(second_round, "all", CPU, round_index=1)
    store = pseudo_label(second_round, "all", CPU, adapter=FINAL_ADAPTER, round_index=1, partition=CasePartition())
    assert store.folder == second_round.paths.pseudo_labels("all", round_index=1)
    assert store.identifiers() == [HIGH, LOW], "the high case too, so that rounds can be compared"
    assert store.manifest["made_by"]["round"] == 1
    of_before = PseudoLabelStore.open(first, grid=second_round.grid).read_labels(LOW)
    expected = agreement(torch.from_numpy(store.read_labels(LOW)), torch.from_numpy(of_before), num_classes=2)
    assert store.read_confidence(LOW)["previous_round_agreement"] == pytest.approx(expected)
    assert {file.name: file.stat().st_mtime_ns for file in first.iterdir()} == before


def test_labels_of_a_round_can_take_the_models(second_round: SFRDataset) -> None:
    """A model that is certain of everything decides alone with a share of 0.9."""
    fine_tune(second_round, "all", CPU, round_index=1)
    change_settings(second_round, {"rounds": {"model_share": 0.9}})
    dataset = reopened(second_round)
    model = PseudoLabelStore.open(dataset.paths.model_pseudo_labels("all", 1), grid=dataset.grid)
    label = partial(pseudo_label, dataset, "all", CPU, adapter=FINAL_ADAPTER, round_index=1, partition=CasePartition())
    with pytest.raises(UserError, match=r"round_1_model: has no probabilities of .* set rounds.model_share to 0"):
        label()
    for case in (HIGH, LOW):
        certain = np.ones(model.read_labels(case).shape[1:], np.float32)
        write_voxel_confidence(model.folder, case, certain, patch_size=dataset.configuration_manager.patch_size)
    store = label()
    for case in (HIGH, LOW):
        np.testing.assert_array_equal(np.maximum(store.read_labels(case), 0), np.maximum(model.read_labels(case), 0))
    assert store.manifest["made_by"]["fused_with"] == [0.9, model.made_by.fingerprint]


def test_rounds_share_the_views_of_labelled_cases(pretrained_project: SFRDataset) -> None:
    """With a frozen encoder: those of high cases carry a fold's labels and lie apart, nothing is embedded twice."""
    fine_tune(pretrained_project, "all", CPU)
    views = pretrained_project.paths.sam_views
    before = {file: file.stat().st_mtime_ns for file in views.rglob("*.safetensors")}
    assert {file.relative_to(views).parts[0] for file in before} == {"labelled"}
    scripted_round(pretrained_project)
    fine_tune(pretrained_project, "all", CPU, round_index=1)
    after = {file: file.stat().st_mtime_ns for file in views.rglob("*.safetensors")}
    assert before.items() <= after.items()
    assert {file.relative_to(views).parts[:2] for file in after.keys() - before.keys()} == {("fold_all", HIGH)}
