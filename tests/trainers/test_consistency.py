"""The consistency term against the authors' code, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nnunet_sfr.trainers.consistency import squared_difference
from tests.conftest import Golden


@pytest.mark.parametrize("name", ["mse2", "mse4"])
def test_squared_difference_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    losses = golden("losses")
    student = torch.from_numpy(losses[f"{name}.input_logits"])
    teacher = torch.from_numpy(losses[f"{name}.target_logits"])
    ours = squared_difference(student, teacher)
    np.testing.assert_allclose(ours.numpy(), losses[f"{name}.map"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.mean().item(), losses[f"{name}.mean"], rtol=1e-5, atol=1e-5)


def test_consistency_over_the_whole_batch_equals_sfr(golden: Callable[[str], Golden]) -> None:
    losses = golden("losses")
    student = torch.from_numpy(losses["retrain.outputs"])
    teacher = torch.from_numpy(losses["retrain.outputs_ema"])
    # column 6: mean over labelled and unlabelled patches
    np.testing.assert_allclose(
        squared_difference(student, teacher).mean().item(), losses["retrain.values"][0, 6], rtol=1e-5, atol=1e-5
    )


def test_gradients_reach_the_student_alone() -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    squared_difference(student.float(), teacher.float()).mean().backward()
    assert teacher.grad is None
    assert student.grad is not None
    # d/dz of mean (p - q)^2 through softmax: 2/N p (d - sum_c p d) with d = p - q
    p, q = torch.softmax(student.detach(), 1), torch.softmax(teacher.detach(), 1)
    expected = 2 / p.numel() * p * ((p - q) - (p * (p - q)).sum(1, keepdim=True))
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-7)


def test_regions_are_compared_channel_by_channel() -> None:
    student, teacher = torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 100.0)
    # sigmoid(0) = 1/2 against sigmoid(100) = 1; softmax would see no difference at all
    assert squared_difference(student, teacher, regions=True).mean() == pytest.approx(0.25)
    assert squared_difference(student, teacher, regions=False).mean() == 0.0
