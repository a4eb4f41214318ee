"""The moving average against the authors' code, its buffers, and the noise on the teacher's input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_sfr.trainers.schedules import teacher_decay
from nnunet_sfr.trainers.teacher import add_clipped_noise, freeze, update_teacher
from tests.conftest import Golden


def small_network() -> nn.Sequential:
    """The network of the golden vectors: 34 parameters, and buffers of batch norm."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def fill(network: nn.Module, values: np.ndarray) -> None:
    nn.utils.vector_to_parameters(torch.from_numpy(values.copy()), network.parameters())


@pytest.mark.parametrize("name", ["ema0", "ema97"])
def test_update_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    losses = golden("losses")
    teacher, student = small_network(), small_network()
    fill(teacher, losses[f"{name}.teacher_init"])
    freeze(teacher)
    for index, step in enumerate(losses[f"{name}.global_step"]):
        fill(student, losses[f"{name}.student"][index])
        update_teacher(teacher, student, teacher_decay(int(step), 0.99))
        ours = nn.utils.parameters_to_vector(teacher.parameters()).numpy()
        np.testing.assert_allclose(ours, losses[f"{name}.teacher"][index], rtol=1e-5, atol=1e-5)


def test_buffers_become_the_students() -> None:
    teacher, student = freeze(small_network()), small_network().train()
    student(torch.randn(8, 3) * 5)
    assert any(not torch.equal(ours, theirs) for ours, theirs in zip(teacher.buffers(), student.buffers(), strict=True))
    update_teacher(teacher, student, decay=0.99)
    for ours, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_frozen_teacher_has_no_gradients_and_evaluates() -> None:
    teacher = freeze(small_network().train())
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_noise_has_the_width_and_the_bounds_asked_for() -> None:
    torch.manual_seed(0)
    images = torch.zeros(2, 1, 40, 40, 40)
    noise = add_clipped_noise(images, std=0.1, clip=0.2, relative=False)
    assert noise.abs().max() == pytest.approx(0.2)
    # a normal distribution clamped at two standard deviations has 0.9594 of the width
    assert noise.std() == pytest.approx(0.09594, rel=0.01)


def test_relative_noise_follows_the_channel() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 2, 24, 24, 24) * torch.tensor([1.0, 50.0]).view(1, 2, 1, 1, 1)
    noise = add_clipped_noise(images, std=0.1, clip=0.2, relative=True) - images
    assert noise[:, 0].std() == pytest.approx(0.096, rel=0.05)
    assert noise[:, 1].std() == pytest.approx(50 * 0.096, rel=0.05)
