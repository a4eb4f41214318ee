"""nnU-Net's loss with weights: the formulas by hand, nnU-Net's own loss where weights change nothing, gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_sfr.trainers.weighted_loss import WeightedLoss, at_resolutions, weighted_loss
from tests.trainers.test_supervised_loss import IGNORE, PLAIN, REGIONS, REGIONS_WITH_IGNORE, SHAPE, a_batch, nnunet_loss

TWO = LabelManager({"background": 0, "organ": 1}, None)
ALL_LABELS = [PLAIN, IGNORE, REGIONS, REGIONS_WITH_IGNORE]


def at_one_resolution(labels: LabelManager, *, batch_dice: bool) -> Any:
    return nnunet_loss(labels, batch_dice=batch_dice, deep_supervision=False)


def some_weights(seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("labels", ALL_LABELS, ids=["labels", "ignore", "regions", "regions and ignore"])
def test_equal_weights_give_nnunets_loss(labels: LabelManager, batch_dice: bool) -> None:
    loss = at_one_resolution(labels, batch_dice=batch_dice)
    logits, target = a_batch(labels)
    ones = torch.ones(2, 1, *SHAPE)
    expected = loss(logits, target)
    weighted = WeightedLoss(loss)
    torch.testing.assert_close(weighted(logits, target, ones), expected)
    torch.testing.assert_close(weighted(logits, target, 0.3 * ones), expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weighted(logits, target, ones, torch.full((2,), 0.3)), 0.3 * expected, rtol=1e-4, atol=0)
    gradients = [
        torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (weighted(logits, target, ones), expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_weight_of_zero_is_nnunets_ignore_label(batch_dice: bool) -> None:
    logits, target = a_batch(IGNORE)
    expected = at_one_resolution(IGNORE, batch_dice=batch_dice)(logits, target)
    valid = target != IGNORE.ignore_label
    anything = torch.where(valid, target, 2)
    ours = WeightedLoss(at_one_resolution(PLAIN, batch_dice=batch_dice))(logits, anything, valid.float())
    torch.testing.assert_close(ours, expected)


def two_voxels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two patches of two voxels: foreground probabilities 0.8, 0.4 and 0.5, 0.1, labels 1, 0 and 1, 1, and weights."""
    p = torch.tensor([[0.8, 0.4], [0.5, 0.1]])
    logits = torch.stack((1 - p, p), dim=1).log().reshape(2, 2, 1, 1, 2).requires_grad_()
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 1, 1, 2)
    weights = torch.tensor([[1.0, 0.5], [0.25, 0.0]]).reshape(2, 1, 1, 1, 2)
    return logits, target, weights


CE = (2.0 * (-math.log(0.8) - 0.5 * math.log(0.6)) + 0.4 * -0.25 * math.log(0.5)) / 1.75
"""Patch weights 2 and 0.4; the voxel weights add up to 1.75."""


def test_dice_of_each_patch_by_hand() -> None:
    logits, target, weights = two_voxels()
    loss = WeightedLoss(at_one_resolution(TWO, batch_dice=False))
    # patch 1: 2 * 0.8 / (0.8 + 0.5 * 0.4 + 1), patch 2: 2 * 0.25 * 0.5 / (0.25 * 0.5 + 0.25)
    dice = (2.0 * 1.6 / 2.0 + 0.4 * 0.25 / 0.375) / 2
    value = loss(logits, target, weights, torch.tensor([2.0, 0.4]))
    assert value.item() == pytest.approx(CE - dice, abs=2e-5)


def test_dice_of_the_batch_by_hand() -> None:
    logits, target, weights = two_voxels()
    loss = WeightedLoss(at_one_resolution(TWO, batch_dice=True))
    mean_weight = (2.0 * 1.5 + 0.4 * 0.25) / 1.75
    intersection = 2.0 * 0.8 + 0.4 * 0.25 * 0.5
    predicted = 2.0 * (0.8 + 0.5 * 0.4) + 0.4 * 0.25 * 0.5
    labelled = 2.0 * 1.0 + 0.4 * 0.25
    dice = mean_weight * 2 * intersection / (predicted + labelled)
    value = loss(logits, target, weights, torch.tensor([2.0, 0.4]))
    assert value.item() == pytest.approx(CE - dice, abs=2e-5)


def test_gradient_of_a_weighted_voxel_by_hand() -> None:
    """Of the cross-entropy: c v (p - y) / sum of v."""
    logits, target, weights = two_voxels()
    loss = WeightedLoss(at_one_resolution(TWO, batch_dice=False))
    loss.loss.weight_dice = 0
    loss(logits, target, weights, torch.tensor([2.0, 0.4])).backward()
    expected = [2.0 * 1.0 * (0.8 - 1), 2.0 * 0.5 * 0.4, 0.4 * 0.25 * (0.5 - 1), 0.0]
    assert logits.grad is not None
    assert logits.grad[:, 1].flatten().tolist() == pytest.approx([value / 1.75 for value in expected], abs=1e-6)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_gradcheck_with_soft_targets(batch_dice: bool) -> None:
    loss = WeightedLoss(at_one_resolution(PLAIN, batch_dice=batch_dice))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.softmax(torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64), dim=1)
    weights = torch.rand(2, 1, 2, 2, generator=generator)

    def value(x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = loss(x, target, weights, torch.tensor([0.5, 1.5])).double()
        return total

    assert torch.autograd.gradcheck(value, (logits,), eps=1e-2, atol=2e-3, nondet_tol=1e-6)


def test_soft_targets_of_certainty_are_hard_ones() -> None:
    loss = WeightedLoss(at_one_resolution(PLAIN, batch_dice=False))
    logits, target = a_batch(PLAIN)
    one_hot = F.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()
    weights = some_weights()
    torch.testing.assert_close(loss(logits, one_hot, weights), loss(logits, target, weights))


def test_voxels_without_any_weight_have_no_gradient() -> None:
    loss = WeightedLoss(at_one_resolution(PLAIN, batch_dice=True))
    logits, target = a_batch(PLAIN)
    (gradient,) = torch.autograd.grad(loss(logits, target, torch.zeros(2, 1, *SHAPE)), logits)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() == 0


def test_deep_supervision_weighs_the_resolutions_as_nnunet_does() -> None:
    logits, target = a_batch(PLAIN)
    outputs, targets = [logits, logits[..., ::2, ::2, ::2]], [target, target[..., ::2, ::2, ::2]]
    weights = some_weights()
    deep = nnunet_loss(PLAIN)
    deep.weight_factors = (0.75, 0.25)
    maps = at_resolutions(weights, targets)
    single = WeightedLoss(deep.loss)
    parts = [single(*values) for values in zip(outputs, targets, maps, strict=True)]
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    ours = weighted_loss(deep)(outputs, targets, maps, [torch.ones(2)] * 2)
    torch.testing.assert_close(ours, expected)


def test_coarse_maps_are_means() -> None:
    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    fine, coarse = at_resolutions(values, [torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 2, 2)])
    assert fine is values
    assert coarse.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


class Operations(TorchDispatchMode):
    """Remembers which operations ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("fine", "coarse", "divides"),
    [((8, 12, 4), (8, 4, 2), True), ((12, 8), (3, 4), True), ((7, 6, 5), (4, 3, 5), False), ((5, 6), (3, 3), False)],
)
def test_coarse_maps_are_what_area_interpolation_gives(
    fine: tuple[int, ...], coarse: tuple[int, ...], divides: bool
) -> None:
    """Where the axes divide, without adaptive pooling, which the device mps does not have in 3D."""
    values = torch.rand(2, 1, *fine, generator=torch.Generator().manual_seed(0))
    with Operations() as operations:
        (ours,) = at_resolutions(values, [torch.zeros(2, 3, *coarse)])
    torch.testing.assert_close(ours, F.interpolate(values, coarse, mode="area"), rtol=0, atol=1e-6)
    assert any("adaptive" in name for name in operations.names) != divides
