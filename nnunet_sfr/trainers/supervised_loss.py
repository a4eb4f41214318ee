"""Parts of nnU-Net's supervised loss."""

from __future__ import annotations

import copy

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
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
