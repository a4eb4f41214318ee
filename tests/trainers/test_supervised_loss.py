"""Parts and copies of nnU-Net's loss: its Dice without the cross-entropy, and a Dice that stays within its rank."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nnunetv2.training.loss import dice
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_sfr.trainers.supervised_loss import dice_part, within_its_rank

PLAIN = LabelManager({"background": 0, "liver": 1, "spleen": 2}, None)
IGNORE = LabelManager({"background": 0, "liver": 1, "spleen": 2, "ignore": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
REGIONS_WITH_IGNORE = LabelManager({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])

SHAPE = (4, 5, 6)

CrossEntropy = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def nnunet_loss(
    labels: LabelManager,
    *,
    batch_dice: bool = False,
    deep_supervision: bool = True,
    is_ddp: bool = False,
    compiled: bool = False,
) -> Any:
    """What nnU-Net's trainer builds, by nnU-Net's own code."""
    trainer = SimpleNamespace(
        label_manager=labels,
        configuration_manager=SimpleNamespace(batch_dice=batch_dice),
        is_ddp=is_ddp,
        enable_deep_supervision=deep_supervision,
        _do_i_compile=lambda: compiled,
        _get_deep_supervision_scales=lambda: [[1.0] * 3, [0.5] * 3],
    )
    return nnUNetTrainer._build_loss(trainer)


def full_resolution(loss: Any) -> Any:
    """Dice + cross-entropy at one resolution."""
    return loss.loss


def a_batch(labels: LabelManager) -> tuple[torch.Tensor, torch.Tensor]:
    """Two items; a third of the second one is to be ignored where labels allow it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, labels.num_segmentation_heads, *SHAPE, generator=generator).requires_grad_()
    if not labels.has_regions:
        target = torch.randint(0, len(labels.all_labels), (2, 1, *SHAPE), generator=generator)
        if labels.has_ignore_label:
            target[1, :, :, :, :2] = labels.ignore_label
        return logits, target.float()
    target = (torch.rand(2, labels.num_segmentation_heads, *SHAPE, generator=generator) > 0.5).float()
    if labels.has_ignore_label:
        ignored = torch.zeros(2, 1, *SHAPE)
        ignored[1, :, :, :, :2] = 1
        target = torch.cat((target, ignored), dim=1)
    return logits, target


def plain_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, target[:, 0].long(), ignore_index=3)


def region_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, target)


def region_ce_with_ignore(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """nnU-Net sums over the channels and divides by the voxels."""
    mask = 1 - target[:, -1:]
    terms = F.binary_cross_entropy_with_logits(logits, target[:, :-1], reduction="none")
    return (terms * mask).sum() / mask.sum()


@pytest.mark.parametrize("batch_dice", [False, True], ids=["item_dice", "batch_dice"])
@pytest.mark.parametrize(
    ("labels", "cross_entropy"),
    [
        (PLAIN, plain_ce),
        (IGNORE, plain_ce),
        (REGIONS, region_ce),
        (REGIONS_WITH_IGNORE, region_ce_with_ignore),
    ],
    ids=["labels", "ignore", "regions", "regions_with_ignore"],
)
def test_it_is_nnunets_loss_without_the_cross_entropy(
    labels: LabelManager, cross_entropy: CrossEntropy, batch_dice: bool
) -> None:
    loss = nnunet_loss(labels, batch_dice=batch_dice)
    logits, target = a_batch(labels)
    both, entropy = full_resolution(loss)(logits, target), cross_entropy(logits, target)
    ours = dice_part(loss)(logits, target)
    torch.testing.assert_close(ours, both - entropy)
    assert -1 < ours.item() < 0
    (gradient,) = torch.autograd.grad(ours, logits)
    (expected,) = torch.autograd.grad(both - entropy, logits)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("labels", [IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_what_is_ignored_has_no_gradient(labels: LabelManager) -> None:
    logits, target = a_batch(labels)
    dice_part(nnunet_loss(labels))(logits, target).backward()
    assert logits.grad is not None
    assert not logits.grad[1, :, :, :, :2].any()
    assert logits.grad[1, :, :, :, 2:].all()


def test_without_deep_supervision_the_loss_is_not_wrapped() -> None:
    loss = nnunet_loss(PLAIN, deep_supervision=False)
    assert isinstance(loss, DC_and_CE_loss)
    logits, target = a_batch(PLAIN)
    torch.testing.assert_close(dice_part(loss)(logits, target), loss(logits, target) - plain_ce(logits, target))


def test_the_trainers_loss_keeps_its_cross_entropy() -> None:
    loss = nnunet_loss(PLAIN)
    logits, target = a_batch(PLAIN)
    before = full_resolution(loss)(logits, target).item()
    dice_part(loss)
    assert full_resolution(loss)(logits, target).item() == before


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("labels", [PLAIN, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_dice_within_a_rank_gathers_nothing(
    labels: LabelManager, deep_supervision: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same loss of a rank's own items, where nnU-Net's asks the other ranks for theirs."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    asked: list[torch.Tensor] = []

    def gather(values: torch.Tensor) -> torch.Tensor:
        asked.append(values)
        return torch.stack((values, torch.zeros_like(values)))

    monkeypatch.setattr(dice.AllGatherGrad, "apply", gather)
    options: dict[str, Any] = {"batch_dice": True, "deep_supervision": deep_supervision, "compiled": compiled}
    theirs, alone = nnunet_loss(labels, is_ddp=True, **options), nnunet_loss(labels, **options)
    ours = within_its_rank(theirs)
    logits, target = a_batch(labels)
    arguments: Any = ([logits] * 2, [target] * 2) if deep_supervision else (logits, target)
    if deep_supervision:
        ours.weight_factors = alone.weight_factors  # with DDP nnU-Net gives the lowest resolution a tiny weight

    torch.testing.assert_close(ours(*arguments), alone(*arguments))
    assert not asked
    # not compiled: torch before 2.5 traces the true function in the place of the one above, and finds no other ranks
    nnunet_loss(labels, is_ddp=True, **{**options, "compiled": False})(*arguments)
    assert asked, "nnU-Net's own must continue to ask"
