"""ACMT's selection and loss against the authors' code, and what a trainer makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nnunet_sfr.trainers.ambiguity_consensus import ambiguous_voxels
from nnunet_sfr.trainers.consistency import entropy_of_logits, selective_consistency
from nnunet_sfr.trainers.schedules import rising_threshold
from tests.conftest import Golden
from tests.project_fixtures import TrainerFactory

DEFAULT = {"start": 0.75, "rise": 0.2}


@pytest.mark.parametrize(
    ("name", "total"), [("acmt", 8000), ("acmt", 6000), ("acmt_confident", 8000)], ids=lambda value: str(value)
)
def test_selection_and_loss_equal_the_authors(golden: Callable[[str], Golden], name: str, total: int) -> None:
    losses = golden("losses")
    student = torch.from_numpy(losses[f"{name}.outputs"][2:])
    teacher = torch.from_numpy(losses[f"{name}.noisy_ema_output"])
    np.testing.assert_allclose(entropy_of_logits(student)[:, 0], losses[f"{name}.EMap"], rtol=1e-5, atol=1e-5)
    iterations = losses[f"{name}.iterations_max{total}"]
    for row, iteration in enumerate(iterations):
        threshold, count, loss = losses[f"{name}.values_max{total}"][row, :3]
        ours = rising_threshold(int(iteration), total_iterations=total, **DEFAULT)
        assert ours == pytest.approx(threshold, abs=1e-12)
        selected = ambiguous_voxels(student, ours)
        assert torch.equal(selected[:, 0], torch.from_numpy(losses[f"{name}.masks_max{total}"][row]).bool())
        assert selected.sum() == count
        np.testing.assert_allclose(selective_consistency(student, teacher, selected), loss, rtol=1e-5, atol=1e-5)


def test_gradient_equals_the_authors(golden: Callable[[str], Golden]) -> None:
    losses = golden("losses")
    student = torch.from_numpy(losses["acmt.outputs"][2:]).requires_grad_()
    row = list(losses["acmt.iterations_max8000"]).index(4000)
    weight = losses["acmt.values_max8000"][row, 3]
    selected = ambiguous_voxels(student, rising_threshold(4000, total_iterations=8000, **DEFAULT))
    (weight * selective_consistency(student, torch.from_numpy(losses["acmt.noisy_ema_output"]), selected)).backward()
    assert student.grad is not None
    expected = losses["acmt.grad_outputs_it4000_max8000"][2:]
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(student.grad, expected, rtol=1e-4, atol=1e-9)


def test_entropy_is_one_for_an_even_vote_and_zero_for_certainty() -> None:
    logits = torch.stack([torch.zeros(4), torch.tensor([100.0, 0.0, 0.0, 0.0])], dim=1)[None, :, :, None]
    entropy = entropy_of_logits(logits.reshape(1, 4, 2, 1))
    torch.testing.assert_close(entropy.flatten(), torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)


def test_every_region_is_a_question_of_its_own() -> None:
    """A sure region beside an unsure one: only the unsure channel is selected, and only it is compared."""
    student = torch.tensor([[0.0, 8.0]]).reshape(1, 2, 1, 1).requires_grad_()
    teacher = torch.tensor([[2.0, -8.0]]).reshape(1, 2, 1, 1)
    selected = ambiguous_voxels(student, 0.75, regions=True)
    assert selected.flatten().tolist() == [True, False]
    loss = selective_consistency(student, teacher, selected, regions=True)
    assert loss.item() == pytest.approx((0.5 - 1 / (1 + math.exp(-2.0))) ** 2, rel=1e-5)
    loss.backward()
    assert student.grad is not None
    assert student.grad.flatten()[0] < 0
    assert student.grad.flatten()[1] == 0


def test_nothing_selected_is_a_loss_of_zero_with_a_gradient_of_zero() -> None:
    student = torch.tensor([9.0, -9.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = selective_consistency(student, torch.zeros(1, 2, 1, 1), ambiguous_voxels(student, 0.75))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_trainer_logs_the_share_that_it_compares(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainer_ACMT")
    trainer.on_train_start()
    trainer.iteration = 2
    shape = (2, 2, *trainer.configuration_manager.patch_size)
    student = torch.zeros(shape)
    student[:, 0, : shape[2] // 4] = 20.0  # a quarter of the voxels is certain
    teacher = torch.zeros(shape)
    teacher[:, 0] = math.log(3.0)  # (3/4, 1/4) everywhere
    loss = trainer.consistency_loss(student, teacher)
    assert trainer._recorded["selected_voxels"] == pytest.approx(0.75)
    assert loss.item() == pytest.approx(0.25**2)
