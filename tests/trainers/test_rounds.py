"""Later rounds of SFR+: who trains whom with which labels, what a round continues from, and what it refuses to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import distributed, nn

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import TEACHER_CHECKPOINT
from nnunet_sfr.selection import Selection
from nnunet_sfr.trainers import ambiguity_consensus
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.consistency import squared_difference
from nnunet_sfr.trainers.methods import METHODS
from nnunet_sfr.trainers.model_card import model_card
from nnunet_sfr.trainers.model_facts import read_model_facts
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.schedules import rising_threshold, teacher_decay
from tests.stopped_runs import require_same_training, resume, train_until_killed, weights
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, build_trainer, change_settings, nnunet_folders, project_copy
from tests.trainers.later_rounds import CHECKPOINT, HIGH, LOW, describe, fill, prepare_round

PLUS = "nnUNetTrainerSFRPlus"
PREVIOUS = "nnUNetTrainerSFR_MT"
CONSISTENCY_METHODS = [name for name in METHODS if name not in ("ST", "BCP")]
"""Those with a consistency loss."""


@pytest.fixture(scope="module")
def trained_root(planned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project after round 0 of Mean Teacher (4 iterations), which round 1 continues, and of MagicNet."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(planned_root, root, dirs_exist_ok=True)
    with nnunet_folders(root):
        dataset = open_dataset(NAME, "3d_fullres", PLANS)
        change_settings(dataset, {"retraining": {"magicnet": {"statistics_window": 3}, "uamt": {"dropout": 0.0}}})
        for name in ("nnUNetTrainerSFR_MagicNet", PREVIOUS):
            trainer = build_trainer(dataset, name)
            trainer.run_training()
        prepare_round(dataset, trainer)
        shutil.rmtree(dataset.paths.pseudo_labels("all"))  # the labels of round 0 have done their work
    return root


@pytest.fixture
def project(trained_root: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    """A copy of that project, which a test may change."""
    with project_copy(trained_root, tmp_path) as dataset:
        yield dataset


def trained(dataset: SFRDataset, name: str) -> Any:
    """A trainer whose training lies in the project."""
    trainer = build_trainer(dataset, name)
    assert Path(trainer.output_folder, CHECKPOINT).is_file()
    return trainer


def plus_trainer(dataset: SFRDataset, method: str) -> Any:
    """The trainer of round 1, with a round 1 that continues a training that suits it."""
    if method == "MagicNet":
        prepare_again(dataset, trained(dataset, "nnUNetTrainerSFR_MagicNet"))
    return build_trainer(dataset, f"{PLUS}_{method}")


def prepare_again(dataset: SFRDataset, trainer: Any, **options: Any) -> Selection:
    for folder in filter(Path.is_dir, dataset.paths.pseudo_labels("all").parent.glob("round_1*")):
        shutil.rmtree(folder)
    return prepare_round(dataset, trainer, **options)


def previous_checkpoint(dataset: SFRDataset, name: str = PREVIOUS) -> Path:
    return Path(trained(dataset, name).output_folder, CHECKPOINT)


def change_selection(dataset: SFRDataset, change: Callable[[Selection], Selection]) -> None:
    file = dataset.paths.selection("all", 1)
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["nnunet_sfr_version"]
    change(Selection(**content)).save(file)


def draw(trainer: Any, *cases: str) -> dict[str, Any]:
    """The next batch whose unlabelled patches are of these cases, in this order."""
    for _ in range(200):
        batch: dict[str, Any] = next(trainer.dataloader_train)
        if list(batch["unlabelled"]["keys"]) == list(cases):
            return batch
    raise AssertionError(f"no batch of {cases}")


def foreground(target: torch.Tensor) -> float:
    """Share of the voxels: 0 with the model's labels, not 0 with SAM's (patches reach over the images' borders)."""
    return (target == 1).float().mean().item()


# --- who trains whom -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CONSISTENCY_METHODS)
def test_sam_labels_the_cases_of_low_confidence_alone(
    method: str, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asserted from what arrives: the calls of the losses, and the patches that student and teacher are shown."""
    trainer = plus_trainer(project, method)
    trainer.on_train_start()
    taught: list[tuple[Any, Any]] = []
    supervised: list[Any] = []
    shown_to_teacher: list[torch.Tensor] = []
    low_loss, loss, teacher_logits = trainer.pseudo_label_loss, trainer.loss, trainer.teacher_logits

    def spy_low(outputs: Any, patches: Patches) -> Any:
        taught.append((outputs, patches.targets))
        return low_loss(outputs, patches)

    def spy(outputs: Any, targets: Any) -> Any:
        supervised.append(targets)
        return loss(outputs, targets)

    def spy_teacher(images: torch.Tensor, **options: Any) -> torch.Tensor:
        shown_to_teacher.append(images)
        logits: torch.Tensor = teacher_logits(images, **options)
        return logits

    trainer.pseudo_label_loss, trainer.loss, trainer.teacher_logits = spy_low, spy, spy_teacher
    seen_shares = set()
    for cases in ((LOW, HIGH), (HIGH, HIGH), (HIGH, LOW), (LOW, LOW)):
        batch = draw(trainer, *cases)
        for calls in (taught, supervised, shown_to_teacher):
            calls.clear()
        unlabelled = batch["unlabelled"]
        with torch.no_grad():
            expected_outputs = trainer.network(unlabelled["data"])
        result = trainer.train_step(batch)

        low = [place for place, case in enumerate(cases) if case == LOW]
        seen_shares.add(len(low))
        assert len(taught) == (1 if low else 0)
        for outputs, targets in taught:
            for ours, theirs in zip(targets, unlabelled["target"], strict=True):
                assert torch.equal(ours, theirs[low])
            assert all(foreground(target) > 0 for target in targets[0]), "these labels are SAM's"
            for ours, theirs in zip(outputs, expected_outputs, strict=True):
                torch.testing.assert_close(ours, theirs[low])
        assert len(supervised) == 1, "the loss of the labelled patches, and of no other"
        for ours, theirs in zip(supervised[0], batch["labelled"]["target"], strict=True):
            assert torch.equal(ours, theirs)
        assert shown_to_teacher
        assert all(torch.equal(shown, unlabelled["data"]) for shown in shown_to_teacher), (
            "consistency is of all patches"
        )
        assert result["low_confidence_share"] == len(low) / 2
        assert result["consistency_loss"] != 0
        assert (result["pseudo_label_loss"] == 0) == (not low)
    assert seen_shares == {0, 1, 2}


@pytest.mark.parametrize("cases", [(HIGH, LOW), (LOW, LOW), (HIGH, HIGH)])
def test_one_step_descends_the_stated_loss(cases: tuple[str, str], project: SFRDataset) -> None:
    """L_pl is nnU-Net's loss of the low patches by themselves; the gradient is that of L_sup + w_p L_pl + w L_cons."""
    change_settings(
        project, {"retraining": {"pseudo_label_weight": 0.5, "consistency_weight": 3.0, "teacher_noise_std": 0.0}}
    )
    trainer = build_trainer(project, f"{PLUS}_MT")
    trainer.on_train_start()
    nn.utils.vector_to_parameters(weights(trainer.teacher) + 0.05, trainer.teacher.parameters())
    batch = draw(trainer, *cases)
    images, targets = batch["unlabelled"]["data"], batch["unlabelled"]["target"]

    supervised = trainer.loss(trainer.network(batch["labelled"]["data"]), batch["labelled"]["target"])
    consistency = squared_difference(trainer.network(images)[0], trainer.teacher(images)).mean()
    one_by_one = [
        trainer.loss(trainer.network(images[place : place + 1]), [target[place : place + 1] for target in targets])
        for place, case in enumerate(cases)
        if case == LOW
    ]
    # every patch has as many voxels, and this plan's Dice is of one patch at a time: the loss of several is their mean
    pseudo = torch.stack(one_by_one).mean() if one_by_one else torch.zeros(())
    expected_loss = supervised + 0.5 * pseudo + 3.0 * consistency
    expected = torch.autograd.grad(expected_loss, list(trainer.network.parameters()), allow_unused=True)

    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in trainer.network.parameters())
    result = trainer.train_step(batch)

    assert consistency.item() > 1e-4, "student and teacher must differ for this test to mean anything"
    assert result["pseudo_label_loss"] == pytest.approx(pseudo.item(), rel=1e-5)
    assert result["loss"] == pytest.approx(expected_loss.item(), rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is not None and theirs.abs().max() > 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_self_training_learns_from_both_teachers(project: SFRDataset) -> None:
    """Every patch is learned from: those of high confidence with the model's labels, the others with SAM's."""
    trainer = build_trainer(project, f"{PLUS}_ST")
    trainer.on_train_start()
    learned: list[Any] = []
    loss, pseudo_label_loss = trainer.loss, trainer.pseudo_label_loss

    def spy(outputs: Any, targets: Any) -> Any:
        learned.append(targets)
        return loss(outputs, targets)

    def spy_pseudo(outputs: Any, patches: Patches) -> Any:
        learned.append(patches.targets)
        return pseudo_label_loss(outputs, patches)

    trainer.loss, trainer.pseudo_label_loss = spy, spy_pseudo
    for cases in ((LOW, HIGH), (HIGH, LOW), (HIGH, HIGH)):
        batch = draw(trainer, *cases)
        learned.clear()
        result = trainer.train_step(batch)
        pseudo, supervised = learned
        assert torch.equal(supervised[0], batch["labelled"]["target"][0])
        assert torch.equal(pseudo[0], batch["unlabelled"]["target"][0])
        for case, target in zip(cases, pseudo[0], strict=True):
            assert (foreground(target) > 0) == (case == LOW)
        assert result["pseudo_label_loss"] != 0
        assert result["low_confidence_share"] == cases.count(LOW) / 2


def test_self_training_records_both_makers_of_its_labels(project: SFRDataset) -> None:
    trainer = build_trainer(project, f"{PLUS}_ST")
    trainer.on_train_start()
    facts = read_model_facts(project, Path(trainer.output_folder).parent, ["all"])
    assert facts.pseudo_labels is not None
    by_model = PseudoLabelStore.open(project.paths.model_pseudo_labels("all", 1), grid=project.grid).made_by
    assert facts.pseudo_labels == Provenance(source="sam").beside(high_confidence=by_model)
    assert facts.pseudo_labels.further == {"high_confidence": by_model}
    card = model_card(facts)
    assert "Made by: SAM." in card
    assert f"In the cases of high confidence: re-trained model ({by_model.trainer}), round 1 of SFR+." in card


def test_self_training_labels_nothing_within_a_round(project: SFRDataset) -> None:
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    stores = project.paths.pseudo_labels("all").parent
    before = sorted(path.name for path in stores.iterdir())
    build_trainer(project, f"{PLUS}_ST_2epochs").run_training()
    assert sorted(path.name for path in stores.iterdir()) == before


def test_without_low_confidence_there_is_no_pseudo_label_loss(project: SFRDataset) -> None:
    change_selection(project, lambda selection: replace(selection, high=(LOW, HIGH), low=()))
    trainer = build_trainer(project, f"{PLUS}_MT_2epochs")
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    assert log["pseudo_label_loss"] == log["low_confidence_share"] == [0.0, 0.0]
    assert log["consistency_loss"][-1] > 0
    assert log["train_losses"] != log["supervised_loss"]
    assert (
        Path(trainer.log_file)
        .read_text(encoding="utf-8")
        .count("round 1: SAM's labels are used in 0 of 2 unlabelled cases")
        == 1
    )


def test_ranks_gather_values_of_one_shape(project: SFRDataset) -> None:
    """nnU-Net collates an epoch by its first step, in which one rank may have a pseudo-label loss and another none."""
    trainer = build_trainer(project, f"{PLUS}_MT")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    with_loss, without = (trainer.train_step(draw(trainer, *cases)) for cases in ((LOW, HIGH), (HIGH, HIGH)))
    assert with_loss["pseudo_label_loss"] != without["pseudo_label_loss"] == 0
    ranks = [collate_outputs(steps) for steps in ([with_loss, without], [without, with_loss])]
    for term in ("loss", *trainer.logged_terms):
        assert ranks[0][term].shape == ranks[1][term].shape == (2, 1), term


def test_an_epoch_is_logged_over_the_ranks_whatever_their_values_are(
    project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(project, f"{PLUS}_MT")
    trainer.initialize()
    outputs = [dict.fromkeys(("loss", *trainer.logged_terms), np.asarray(value)) for value in (1.0, 3.0)]

    def gather(into: list[Any], values: Any) -> None:
        into[:] = [values, [2.0, np.float32(6.0)]]

    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(nnUNetTrainer, "on_train_epoch_end", lambda *_: None)
    trainer.is_ddp = True
    trainer.on_train_epoch_end(outputs)
    log = trainer.logger.local_logger.my_fantastic_logging
    assert {log[term][0] for term in trainer.logged_terms} == {3.0}


def test_patches_without_names_are_an_error(project: SFRDataset) -> None:
    """Or nothing would be of low confidence, and SAM would train nothing without a word."""
    trainer = build_trainer(project, f"{PLUS}_MT")
    trainer.on_train_start()
    patches = Patches(torch.zeros(2, 1, *trainer.configuration_manager.patch_size), [])
    with pytest.raises(ValueError, match="shorter"):
        trainer.pseudo_label_losses([], patches)


# --- what it continues from -------------------------------------------------------------------------------------------


def test_the_round_begins_where_the_previous_one_ended(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    change_settings(project, {"retraining": {"consistency_weight": 3.0}})
    previous = torch.load(previous_checkpoint(project), weights_only=False)
    trainer = build_trainer(project, f"{PLUS}_ACMT")
    trainer.on_train_start()
    assert_equal_weights(trainer.student, previous["network_weights"])
    assert_equal_weights(trainer.teacher, previous[CHECKPOINT_KEY]["teacher_weights"])
    assert not torch.equal(weights(trainer.student), weights(trainer.teacher)), "or the two cannot be told apart"
    assert trainer.iteration == previous[CHECKPOINT_KEY]["iteration"] == 4
    # a warm restart
    trainer.on_train_epoch_start()
    assert not trainer.optimizer.state
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.01]

    # nothing ramps up again, and nothing ramps on
    thresholds: list[float] = []

    def spy(*arguments: Any, **options: Any) -> float:
        thresholds.append(rising_threshold(*arguments, **options))
        return thresholds[-1]

    monkeypatch.setattr(ambiguity_consensus, "rising_threshold", spy)
    teacher = weights(trainer.teacher)
    results = []
    for iteration in (4, 5):
        results.append(trainer.train_step(next(trainer.dataloader_train)))
        decay = teacher_decay(iteration, 0.99)
        teacher = decay * teacher + (1 - decay) * weights(trainer.student)
        torch.testing.assert_close(weights(trainer.teacher), teacher)
    assert [result["consistency_weight"] for result in results] == [3.0, 3.0]
    assert thresholds == [pytest.approx(0.95)] * 2
    assert trainer.iteration == 6


def assert_equal_weights(module: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    ours = module.state_dict()
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_pretrained_weights_do_not_replace_the_previous_round(project: SFRDataset) -> None:
    trainer = build_trainer(project, f"{PLUS}_MT")
    trainer.initialize()
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.zeros_like(weights(trainer.student)), trainer.student.parameters())
    trainer.on_train_start()
    assert_equal_weights(
        trainer.student, torch.load(previous_checkpoint(project), weights_only=False)["network_weights"]
    )


def test_a_round_draws_patches_of_its_own(project: SFRDataset) -> None:
    """The seed of the settings alone would give it those of the first round again, in their order."""
    fill(project, project.paths.pseudo_labels("all"), {"source": "sam"}, np.ones_like)  # the very labels of round 1
    first, second = build_trainer(project, PREVIOUS), build_trainer(project, f"{PLUS}_MT")
    batches = []
    for trainer in (first, second):
        trainer.on_train_start()
        batches.append([next(trainer.dataloader_train)["labelled"]["data"] for _ in range(2)])
    for ours, theirs in zip(*batches, strict=True):
        assert ours.shape == theirs.shape
        assert not torch.equal(ours, theirs)


def test_magicnet_goes_on_with_its_head_and_its_statistics(project: SFRDataset) -> None:
    previous = torch.load(previous_checkpoint(project, "nnUNetTrainerSFR_MagicNet"), weights_only=False)[CHECKPOINT_KEY]
    trainer = plus_trainer(project, "MagicNet")
    trainer.on_train_start()
    assert_equal_weights(trainer.extra_modules, previous["extra_modules"])
    ours, expected = trainer.class_statistics.state_dict(), previous["method"]["class_statistics"]
    assert (expected["iterations"], expected["finished_windows"]) == (1, 1)
    assert expected["finished"].sum() > 0
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(value)), key
    assert not trainer.extra_optimizer.state


@pytest.mark.parametrize(
    ("name", "changes", "epochs"),
    [
        (f"{PLUS}_MT", {}, 1),
        (f"{PLUS}_MT", {"retraining": {"epochs": 7}}, 4),  # 3.5
        (f"{PLUS}_MT", {"retraining": {"epochs": 7}, "rounds": {"retraining_fraction": 0.1}}, 1),
        (f"{PLUS}_MT_3epochs", {"retraining": {"epochs": 7}}, 3),
        (f"{PLUS}_ST_round4", {"retraining": {"epochs": 20}, "rounds": {"retraining_fraction": 1.5}}, 30),
        (PREVIOUS, {"retraining": {"epochs": 7}}, 7),
    ],
)
def test_length_of_a_round(name: str, changes: dict[str, Any], epochs: int, project: SFRDataset) -> None:
    change_settings(project, changes)
    trainer = build_trainer(project, name)
    trainer.initialize()
    assert trainer.num_epochs == epochs


def test_the_second_round_goes_on_from_the_first(project: SFRDataset) -> None:
    """Other roles and other labels: what was of low confidence is now of high."""
    first = build_trainer(project, f"{PLUS}_MT")
    first.run_training()
    assert (first.iteration, first.num_epochs) == (6, 1)
    prepare_round(project, first, round_index=2, low=(HIGH,))
    shutil.rmtree(project.paths.selection("all", 1).parent / "round_1")
    shutil.rmtree(project.paths.results / f"{PREVIOUS}__{PLANS}__3d_fullres")

    second = build_trainer(project, f"{PLUS}_MT_round2_2epochs")
    second.on_train_start()
    assert torch.equal(weights(second.student), weights(first.student))
    assert torch.equal(weights(second.teacher), weights(first.teacher))
    assert (second.iteration, second.schedule_iterations, second.total_iterations) == (6, 6, 4)
    assert second.low_confidence == {HIGH}
    assert second.train_step(draw(second, LOW, LOW))["pseudo_label_loss"] == 0
    assert second.train_step(draw(second, HIGH, LOW))["pseudo_label_loss"] != 0
    assert type(second).__name__ in second.output_folder


def test_a_stopped_round_needs_nothing_of_the_previous_one(project: SFRDataset) -> None:
    """Killed and resumed equals uninterrupted, though the previous model has been deleted by then."""
    name = f"{PLUS}_MT_2epochs"
    change_settings(project, {"retraining": {"consistency_weight": 3.0}})
    undisturbed = build_trainer(project, name)
    undisturbed.run_training()
    shutil.rmtree(undisturbed.output_folder)

    train_until_killed(build_trainer(project, name), epoch=1)
    for folder in project.paths.results.glob("nnUNetTrainerSFR_*"):
        shutil.rmtree(folder)
    resumed = resume(lambda: build_trainer(project, name))
    assert (resumed.current_epoch, resumed.iteration, resumed.schedule_iterations) == (1, 6, 4)
    resumed.run_training()
    require_same_training(resumed, undisturbed)
    assert resumed.logger.local_logger.my_fantastic_logging["consistency_weight"] == [3.0, 3.0]


# --- what it refuses -------------------------------------------------------------------------------------------------


def refusal(dataset: SFRDataset, name: str = f"{PLUS}_MT") -> str:
    """The one line with which a training ends before it begins."""
    trainer = build_trainer(dataset, name)
    with pytest.raises(SystemExit) as exit_info:
        trainer.on_train_start()
    message = str(exit_info.value)
    assert message.startswith("error: /"), "it must name the file"
    assert "\n" not in message
    assert trainer.dataloader_train is None
    return message


def test_a_round_without_selection_or_labels_is_refused(project: SFRDataset) -> None:
    paths = project.paths
    shutil.rmtree(paths.model_pseudo_labels("all", 1))
    assert "/round_1_model: there are no pseudo-labels; run sfr_pseudolabel -tr" in refusal(project, f"{PLUS}_ST")
    shutil.rmtree(paths.pseudo_labels("all", round_index=1))
    message = refusal(project)
    assert message.endswith("/round_1: there are no pseudo-labels; run sfr_pseudolabel --round 1 first")
    paths.selection("all", 1).unlink()
    assert refusal(project).endswith("/round_1_selection.json: not found; run sfr_select --round 1 first")
    assert refusal(project, f"{PLUS}_MT_round3").endswith("selection.json: not found; run sfr_select --round 3 first")


def test_a_selection_of_other_cases_is_refused(project: SFRDataset) -> None:
    change_selection(project, lambda selection: replace(selection, high=(HIGH, "unlabelled_07")))
    assert "does not divide the unlabelled cases (unlabelled_07)" in refusal(project)


def test_labels_that_the_selection_does_not_speak_of_are_refused(project: SFRDataset) -> None:
    """Self-training reads the model's labels: they have to be those by which the cases were chosen."""
    folder = project.paths.model_pseudo_labels("all", 1)
    shutil.rmtree(folder)
    fill(project, folder, describe(trained(project, "nnUNetTrainerSFR_MagicNet")), np.zeros_like)
    assert "/round_1_model: was filled again since the cases were chosen; run sfr_select" in refusal(
        project, f"{PLUS}_ST"
    )
    build_trainer(project, f"{PLUS}_MT").on_train_start()  # which does not read them


@pytest.mark.parametrize("model", [{}, {"model": "x", "trainer": "y", "checkpoints": {"fold_0": ["z", "0"]}}])
def test_a_selection_without_a_model_of_the_fold_is_refused(model: dict[str, Any], project: SFRDataset) -> None:
    change_selection(project, lambda selection: replace(selection, model=model))
    message = refusal(project)
    assert "/round_1_selection.json: names no model of fold all to continue from; run sfr_pseudolabel" in message


def test_a_missing_model_is_refused(project: SFRDataset) -> None:
    file = previous_checkpoint(project)
    file.unlink()
    message = refusal(project)
    assert message.startswith(f"error: {file}: not found, but the round continues from it; train {PREVIOUS} again")


def test_a_model_that_was_trained_anew_is_refused(project: SFRDataset) -> None:
    file = previous_checkpoint(project)
    checkpoint = torch.load(file, weights_only=False)
    checkpoint[CHECKPOINT_KEY]["iteration"] += 1
    torch.save(checkpoint, file)
    message = refusal(project)
    assert message.startswith(f"error: {file}: was trained again since it labelled the cases of this round; run")
    assert f"sfr_pseudolabel --round 1 -tr {PREVIOUS} --overwrite" in message


def name_checkpoint(dataset: SFRDataset, file: Path) -> None:
    """Let the selection name another checkpoint of the model, as it is now."""

    def rename(selection: Selection) -> Selection:
        return replace(selection, model={**selection.model, "checkpoints": {"fold_all": [file.name, file_hash(file)]}})

    change_selection(dataset, rename)


def test_a_model_without_a_teacher_is_refused(project: SFRDataset) -> None:
    file = previous_checkpoint(project).with_name(TEACHER_CHECKPOINT)
    name_checkpoint(project, file)
    message = refusal(project)
    assert message.startswith(
        f"error: {file}: has no teacher to continue with, as checkpoint_final.pth of an SFR trainer"
    )


@pytest.mark.parametrize("part", ["network_weights", "teacher_weights"])
def test_a_network_that_does_not_fit_is_refused(part: str, project: SFRDataset) -> None:
    file = previous_checkpoint(project)
    checkpoint = torch.load(file, weights_only=False)
    state = checkpoint[part] if part in checkpoint else checkpoint[CHECKPOINT_KEY][part]
    name = next(iter(state))
    state[name] = state[name][:1]
    torch.save(checkpoint, file)
    name_checkpoint(project, file)
    message = refusal(project)
    assert message.startswith(f"error: {file}: its network is not the one of {project.paths.plans_file}")


def test_another_methods_modules_are_refused(project: SFRDataset) -> None:
    message = refusal(project, f"{PLUS}_MagicNet")
    assert f"is of {PREVIOUS}, which trains other modules beside the network than {PLUS}_MagicNet" in message
    prepare_again(project, trained(project, "nnUNetTrainerSFR_MagicNet"))
    message = refusal(project, f"{PLUS}_ICT_5epochs")
    assert "is of nnUNetTrainerSFR_MagicNet, which trains other modules" in message
    assert f"than {PLUS}_ICT_5epochs; continue with the same method" in message


def test_a_method_without_modules_goes_on_from_another(project: SFRDataset) -> None:
    first = build_trainer(project, f"{PLUS}_ST_1epochs")
    first.run_training()
    prepare_round(project, first, round_index=2)
    second = build_trainer(project, f"{PLUS}_ICT_round2")
    second.on_train_start()
    assert second.iteration == 6
    assert torch.equal(weights(second.teacher), weights(first.teacher))
