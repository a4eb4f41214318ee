"""Parts of nnU-Net's supervised loss."""

from __future__ import annotations

import copy

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
from torch import nn


def dice_part(loss: nn.Module) -> nn.Module:
    """The Dice of nnU-Net's Dice + cross-entropy, at one resolution; regions and the ignore label stay respected.

    Args:
        loss: what nnU-Net's trainer builds.

    Returns:
        a loss of logits (n, C, ...) and a target as nnU-Net's loader makes it for full resolution.
    """
    dice = copy.copy(loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss)
    dice.weight_ce = 0
    return dice


def within_its_rank(loss: nn.Module) -> nn.Module:
    """A copy of nnU-Net's loss for items of which every rank may have another number, or none.

    With DDP nnU-Net's Dice over the batch gathers from all ranks: a rank that has no such item would be waited for
    forever, and other numbers of items do not fit together. The copy's Dice is over the items of its rank.
    """
    own = copy.deepcopy(loss)
    for module in own.modules():
        if isinstance(module, (MemoryEfficientSoftDiceLoss, SoftDiceLoss)):
            module.ddp = False
    return own
