"""ICT: the loss against the formula written out, the partner of each patch, and trainings on the tiny project."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.environment import TRAINER_PATH_VARIABLE, announce_trainers
from nnunet_sfr.trainers import interpolation_consistency as ict
from nnunet_sfr.trainers.consistency import squared_difference
from nnunet_sfr.trainers.interpolation_consistency import draw_mix, interpolate, interpolation_consistency
from nnunet_sfr.trainers.methods import ICTSettings
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.schedules import consistency_weight
from tests import tiny_project
from tests.conftest import REPOSITORY
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import require_same_training, resume, train_until_killed, weights
from tests.tiny_project import change_settings

PAGE = REPOSITORY / "docs" / "add-a-method.md"


def move_teacher(trainer: Any) -> None:
    """A teacher that equals the student would hide which of the two was asked."""
    nn.utils.vector_to_parameters(weights(trainer.teacher) + 0.05, trainer.teacher.parameters())


def random_patches(trainer: Any, count: int) -> Patches:
    channels, size = trainer.num_input_channels, trainer.configuration_manager.patch_size
    return Patches(torch.randn(count, channels, *size), None)


def only_loss(trainer: Any, labelled: Patches, unlabelled: Patches) -> torch.Tensor:
    """L_cons of a method without pseudo-labels, which yields nothing else."""
    [losses] = trainer.unlabelled_losses(labelled, unlabelled)
    loss: torch.Tensor = losses["consistency_loss"]
    assert list(losses) == ["consistency_loss"]
    return loss


# --- the pure functions ---


def test_the_mix_is_drawn_from_a_symmetric_beta_and_pairs_no_patch_with_itself() -> None:
    np.random.seed(1)
    draws = [draw_mix(4, 0.2) for _ in range(4000)]
    lambdas, shifts = np.array([weight for weight, _ in draws]), [shift for _, shift in draws]
    assert set(shifts) == {1, 2, 3}
    assert lambdas.mean() == pytest.approx(0.5, abs=0.02)
    # the variance of Beta(a, a) is 1 / (4 (2 a + 1)); a uniform lambda would have 1/12
    assert lambdas.var() == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_every_item_is_mixed_with_another() -> None:
    values = torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
    mixed = interpolate(values, 0.25, 1).flatten()
    torch.testing.assert_close(mixed, torch.tensor([75.25, 3.25, 32.5]))


def test_loss_equals_the_formula_written_out() -> None:
    """Two patches of one voxel and two classes, probabilities chosen by hand."""
    student = torch.tensor([[0.6, 0.4], [0.3, 0.7]]).log().reshape(2, 2, 1, 1)
    teacher = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log().reshape(2, 2, 1, 1)
    # lambda 0.25: targets 0.25 * 0.9 + 0.75 * 0.2 = 0.375 and 0.25 * 0.2 + 0.75 * 0.9 = 0.725 for the first class
    expected = ((0.6 - 0.375) ** 2 + (0.3 - 0.725) ** 2) / 2  # both classes are off by the same amount
    assert interpolation_consistency(student, teacher, 0.25, 1).item() == pytest.approx(expected, rel=1e-5)
    # lambda 1/4 and 3/4 ask for different things, so the roles of patch and partner matter
    assert interpolation_consistency(student, teacher, 0.75, 1).item() != pytest.approx(expected, rel=0.1)


def test_every_region_is_a_question_of_its_own() -> None:
    student = torch.zeros(2, 2, 1, 1)
    teacher = torch.tensor([[100.0, -100.0], [100.0, 100.0]]).reshape(2, 2, 1, 1)
    # probabilities (1, 0) and (1, 1), so targets (1, 0.75) and (1, 0.25) for the student's (1/2, 1/2)
    expected = (0.5**2 + 0.25**2 + 0.5**2 + 0.25**2) / 4
    assert interpolation_consistency(student, teacher, 0.25, 1, regions=True).item() == pytest.approx(expected)


def test_lambda_of_one_is_the_consistency_of_mean_teacher() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    ours = interpolation_consistency(student, teacher, 1.0, 2)
    torch.testing.assert_close(ours, squared_difference(student, teacher).mean())


@pytest.mark.parametrize("regions", [False, True])
def test_gradient_is_right_and_the_students_alone(regions: bool) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return interpolation_consistency(logits, teacher, 0.3, 1, regions=regions)

    assert torch.autograd.gradcheck(loss, (student,))
    teacher.requires_grad_()
    loss(student).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-3
    assert teacher.grad is None


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha must be positive, got {alpha}"):
        ICTSettings(alpha=alpha)


# --- what a trainer makes of them ---


def test_one_step_descends_the_stated_loss(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three backward passes together give the gradient of L_sup + w_p L_pl + w(t) L_cons."""
    change_settings(project, {"retraining": {"pseudo_label_weight": 0.5, "consistency_weight": 30.0}})
    trainer = make_trainer("nnUNetTrainerSFR_ICT")
    trainer.on_train_start()
    trainer.iteration = 2
    move_teacher(trainer)
    batch = next(trainer.dataloader_train)
    monkeypatch.setattr(ict, "draw_mix", lambda batch_size, alpha: (0.3, 1))

    first, second = batch["unlabelled"]["data"]  # a batch of two: each is the other's partner
    mixed = torch.stack((0.3 * first + 0.7 * second, 0.3 * second + 0.7 * first))
    p_first, p_second = torch.softmax(trainer.teacher(torch.stack((first, second))), dim=1)
    target = torch.stack((0.3 * p_first + 0.7 * p_second, 0.3 * p_second + 0.7 * p_first))
    consistency = ((torch.softmax(trainer.network(mixed)[0], dim=1) - target) ** 2).mean()
    supervised = trainer.loss(trainer.network(batch["labelled"]["data"]), batch["labelled"]["target"])
    pseudo = trainer.loss(trainer.network(batch["unlabelled"]["data"]), batch["unlabelled"]["target"])
    weight = consistency_weight(2, total_iterations=4, maximum=30.0, ramp_up_fraction=1.0)
    expected_loss = supervised + 0.5 * pseudo + weight * consistency
    expected = torch.autograd.grad(expected_loss, list(trainer.network.parameters()), allow_unused=True)

    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in trainer.network.parameters())
    result = trainer.train_step(batch)

    assert consistency.item() > 1e-4, "student and teacher must differ for this test to mean anything"
    assert result["consistency_loss"] == pytest.approx(consistency.item(), rel=1e-5)
    assert result["loss"] == pytest.approx(expected_loss.item(), rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is not None and theirs.abs().max() > 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in trainer.teacher.parameters())


def test_lambda_of_one_is_mean_teacher_without_noise(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers = [make_trainer("nnUNetTrainer_ICT"), make_trainer("nnUNetTrainer_MT")]
    for trainer in trainers:
        trainer.initialize()  # the same seed, so the same weights
        move_teacher(trainer)
    patches = random_patches(trainers[0], 2)
    monkeypatch.setattr(ict, "draw_mix", lambda batch_size, alpha: (1.0, 1))
    noisy = only_loss(trainers[1], patches, patches)
    change_settings(project, {"retraining": {"teacher_noise_std": 0.0}})
    trainers[1].settings = project.settings.retraining
    ours, theirs = (only_loss(trainer, patches, patches) for trainer in trainers)
    torch.testing.assert_close(ours, theirs)
    assert not torch.isclose(noisy, theirs), "the noise must show for this test to mean anything"


def test_a_batch_of_one_is_mixed_with_the_labelled_patch(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_settings(project, {"retraining": {"ict": {"alpha": 0.2}}})
    trainer = make_trainer("nnUNetTrainer_ICT")
    trainer.initialize()
    move_teacher(trainer)
    labelled, unlabelled = random_patches(trainer, 1), random_patches(trainer, 1)
    asked: list[torch.Tensor] = []
    trainer.network.register_forward_pre_hook(lambda module, arguments: asked.append(arguments[0]))

    def draw(batch_size: int, alpha: float) -> tuple[float, int]:
        assert (batch_size, alpha) == (2, 0.2)
        return 0.3, 1

    monkeypatch.setattr(ict, "draw_mix", draw)
    loss = only_loss(trainer, labelled, unlabelled)

    mixed = 0.3 * unlabelled.images + 0.7 * labelled.images
    assert len(asked) == 1
    torch.testing.assert_close(asked[0], mixed)
    target = 0.3 * torch.softmax(trainer.teacher(unlabelled.images), dim=1)
    target = target + 0.7 * torch.softmax(trainer.teacher(labelled.images), dim=1)
    student = torch.softmax(trainer.network(mixed)[0], dim=1)
    torch.testing.assert_close(loss, ((student - target) ** 2).mean())


def test_regions_are_compared_by_their_sigmoids(make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("nnUNetTrainer_ICT")
    trainer.initialize()
    move_teacher(trainer)
    patches = random_patches(trainer, 2)
    monkeypatch.setattr(ict, "draw_mix", lambda batch_size, alpha: (0.3, 1))
    monkeypatch.setattr(type(trainer.label_manager), "has_regions", property(lambda self: True))
    loss = only_loss(trainer, patches, patches)
    partners = patches.images.flip(0)
    target = 0.3 * torch.sigmoid(trainer.teacher(patches.images)) + 0.7 * torch.sigmoid(trainer.teacher(partners))
    student = torch.sigmoid(trainer.network(0.3 * patches.images + 0.7 * partners)[0])
    torch.testing.assert_close(loss, ((student - target) ** 2).mean())


def test_a_short_training(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainer_ICT")
    trainer.on_train_start()
    start = weights(trainer.student)
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    for term in ("supervised_loss", "consistency_loss", "consistency_weight", "train_losses"):
        assert len(log[term]) == 2
        assert np.isfinite(log[term]).all()
    assert min(log["consistency_loss"]) > 0
    assert "pseudo_label_loss" not in log
    student, teacher = weights(trainer.student), weights(trainer.teacher)
    assert not torch.equal(student, start)
    assert not torch.equal(teacher, start)
    assert not torch.equal(teacher, student)


def test_a_resumed_run_ends_with_the_same_weights(make_trainer: TrainerFactory) -> None:
    undisturbed = make_trainer("nnUNetTrainerSFR_ICT")
    undisturbed.run_training()
    shutil.rmtree(undisturbed.output_folder)

    train_until_killed(make_trainer("nnUNetTrainerSFR_ICT"), epoch=1)
    resumed = resume(lambda: make_trainer("nnUNetTrainerSFR_ICT"))
    assert resumed.current_epoch == 1
    resumed.run_training()
    require_same_training(resumed, undisturbed)


# --- docs/add-a-method.md ---


def test_nnunet_finds_a_method_outside_the_package(
    make_trainer: TrainerFactory, project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's example in a folder that nnUNet_extTrainer lists: found by name, and its loss is the stated one."""
    [code] = re.findall(
        r"<!-- outside the package -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "absolute.py").write_text(code)
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, str(folder))
    announce_trainers()

    assert recursive_find_trainer_class_by_name("nnUNetTrainer_AbsoluteMT_50epochs").requested_epochs == 50
    assert recursive_find_trainer_class_by_name("nnUNetTrainerSFR_ICT_3epochs").requested_epochs == 3  # ours still
    found = recursive_find_trainer_class_by_name("nnUNetTrainer_AbsoluteMT")
    monkeypatch.setattr(tiny_project, "find_trainer", lambda name: found)
    trainer = make_trainer("nnUNetTrainer_AbsoluteMT")
    trainer.initialize()
    student, teacher = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    teacher[:, 0] = math.log(3.0)  # (3/4, 1/4) against (1/2, 1/2)
    assert trainer.consistency_loss(student, teacher).item() == pytest.approx(0.25)
