"""nnU-Net's loss with a weight for every voxel and every patch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn
from torch.nn import functional as F

SMALLEST = 1e-8
"""nnU-Net's own lower bound for the denominators of masked means."""


class WeightedLoss(nn.Module):
    """nnU-Net's Dice + cross-entropy at one resolution, with weights v(x) of the voxels and c_i of the patches.

    Voxel weights are relative, as nnU-Net's mask of the ignore label, which they generalise: a voxel of weight 0 does
    not exist. Patch weights are absolute: where all patches have c the loss is c times what it would be without.

        CE   = sum_i c_i sum_x v_i(x) ce_i(x) / sum_i sum_x v_i(x)
        Dice = mean_i c_i Dice(patch i, voxels weighted with v_i)
        Dice over a batch = c Dice(all patches, voxels weighted with c_i v_i), c = sum_i c_i V_i / sum_i V_i

    with V_i = sum_x v_i(x). Without weights this is nnU-Net's loss. The Dice is computed by nnU-Net's own class.

    Args:
        loss: what nnU-Net builds for one resolution (``DC_and_CE_loss`` or ``DC_and_BCE_loss``).
    """

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.has_regions = isinstance(loss, DC_and_BCE_loss)

    def forward(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        voxel_weights: torch.Tensor,
        patch_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss.

        Args:
            logits: (n, C, ...), gradients flow.
            target: (n, 1, ...) labels, or (n, C, ...) probabilities of the classes; with regions as nnU-Net's loader
                makes it, (n, C, ...) and perhaps a last channel for the ignore label.
            voxel_weights: (n, 1, ...), at least 0.
            patch_weights: (n,), at least 0; None for 1.

        Returns:
            a scalar.
        """
        if patch_weights is None:
            patch_weights = torch.ones(len(logits), device=logits.device)
        target, voxel_weights = self._without_ignored(target, voxel_weights.float())
        entropy = self._cross_entropy(logits, target, voxel_weights, patch_weights)
        dice = self._dice(logits, target, voxel_weights, patch_weights)
        total: torch.Tensor = self.loss.weight_ce * entropy + self.loss.weight_dice * dice
        return total

    def _without_ignored(self, target: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Target and weights, with a weight of 0 where nnU-Net's ignore label is."""
        if self.has_regions:
            if not self.loss.use_ignore_label:
                return target.float(), weights
            return target[:, :-1].float(), weights * (1.0 - target[:, -1:].float())
        if self.loss.ignore_label is None or target.shape[1] > 1:
            return target, weights
        valid = target != self.loss.ignore_label
        return torch.where(valid, target, 0), weights * valid

    def _cross_entropy(
        self, logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, patch_weights: torch.Tensor
    ) -> torch.Tensor:
        if self.has_regions:
            by_voxel = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1, keepdim=True)
            if not self.loss.use_ignore_label:  # nnU-Net takes the mean over regions here alone
                by_voxel = by_voxel / logits.shape[1]
        elif target.shape[1] > 1:
            by_voxel = F.cross_entropy(logits, target, reduction="none")[:, None]
        else:
            by_voxel = F.cross_entropy(logits, target[:, 0].long(), reduction="none")[:, None]
        by_patch = (weights * by_voxel).flatten(1).sum(dim=1)
        return (patch_weights * by_patch).sum() / weights.sum().clamp(min=SMALLEST)

    def _dice(
        self, logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, patch_weights: torch.Tensor
    ) -> torch.Tensor:
        dice = self.loss.dc
        if not dice.batch_dice:
            by_patch = [dice(logits[[i]], target[[i]], loss_mask=weights[[i]]) for i in range(len(logits))]
            return (patch_weights * torch.stack(by_patch)).mean()
        of_patches = weights.flatten(1).sum(dim=1)
        mean_weight = (patch_weights * of_patches).sum() / of_patches.sum().clamp(min=SMALLEST)
        factors = patch_weights.reshape(-1, *[1] * (weights.ndim - 1))
        joint: torch.Tensor = dice(logits, target, loss_mask=weights * factors)
        return mean_weight * joint


def weighted_loss(loss: nn.Module) -> nn.Module:
    """nnU-Net's loss, with deep supervision if it has that, as one that takes weights.

    Args:
        loss: what nnU-Net's trainer builds.

    Returns:
        a loss of logits, target, voxel weights and patch weights (:class:`WeightedLoss`); with deep supervision each is
        a list with an entry for every resolution (:func:`at_resolutions` makes one of the voxel weights).
    """
    if isinstance(loss, DeepSupervisionWrapper):
        deep: nn.Module = DeepSupervisionWrapper(WeightedLoss(loss.loss), loss.weight_factors)
        return deep
    return WeightedLoss(loss)


def at_resolutions(values: torch.Tensor, targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A map (n, 1, ...) at the resolution of each target (n, channels, ...), averaged over each coarse voxel.

    Args:
        values: (n, 1, *spatial), floating-point.
        targets: one for each resolution, (n, channels, *spatial).
    """
    return [values if values.shape[2:] == target.shape[2:] else _mean_in_blocks(values, target) for target in targets]


def _mean_in_blocks(values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A map (n, 1, ...) at the resolution of a target (n, channels, ...), each voxel the mean of those it covers."""
    fine, coarse = values.shape[2:], target.shape[2:]
    sizes = [size // number for size, number in zip(fine, coarse, strict=True)]
    if any(size * number != length for size, number, length in zip(sizes, coarse, fine, strict=True)):
        return F.interpolate(values, coarse, mode="area")
    # the same as "area", which Apple's graphics cards do not have in 3D
    blocks = values.reshape(*values.shape[:2], *itertools.chain(*zip(coarse, sizes, strict=True)))
    return blocks.mean(dim=tuple(range(3, blocks.ndim, 2)))
