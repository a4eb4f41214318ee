"""The fine-tuning loss: cross entropy and Dice on the stitched image (paper, section III-B2; SFR code)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_SMOOTH = 1e-10
"""SFR code, ``DiceLoss``; only a class that neither the target nor the prediction has can feel it."""


def _this_process_alone(sums: Tensor) -> Tensor:
    return sums


def stitched_segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int,
    cross_entropy_weight: float,
    dice_weight: float,
    over_processes: Callable[[Tensor], Tensor] = _this_process_alone,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of cross entropy and Dice over the pixels that are not ignored.

    In the authors' code the ignored pixels still add to Dice's denominator and so push every class down there:
    https://github.com/ShumengLI/SFR/blob/dc32304b6ba7a6f9ecbcea5a30e9eebe98510ad6/code/utils/losses.py

    Args:
        logits: [B, C, ...] with any spatial axes, background first.
        target: [B, ...], int64, values 0 to C - 1 or ``ignore_index``.
        ignore_index: the value of pixels without a label (fill of the canvas, nnU-Net's ignore label).
        cross_entropy_weight: factor of the mean cross entropy.
        dice_weight: factor of the mean Dice loss.
        over_processes: adds up a tensor over the processes that share a batch, differentiably; both terms are ratios of
            sums over the whole batch, so that the loss is that of one process with the joined batch.

    Returns:
        The loss (zero, with zero gradients, if every pixel is ignored), and its two terms unweighted and detached as
        ``cross_entropy`` and ``dice``.
    """
    # Sums over a canvas of a million pixels leave the range and precision of half floats.
    logits = logits.float()
    valid = target != ignore_index
    labels = torch.where(valid, target, 0)
    pixel_loss = F.cross_entropy(logits, labels, reduction="none")
    summed_loss, pixels = over_processes(torch.stack([(pixel_loss * valid).sum(), valid.sum().to(pixel_loss.dtype)]))
    cross_entropy = summed_loss / pixels.clamp(min=1)
    dice = soft_dice_per_class(logits.softmax(dim=1), labels, valid, over_processes).mean()
    total = cross_entropy_weight * cross_entropy + dice_weight * dice
    return total, {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}


def soft_dice_per_class(
    probabilities: Tensor,
    labels: Tensor,
    valid: Tensor,
    over_processes: Callable[[Tensor], Tensor] = _this_process_alone,
) -> Tensor:
    """1 - (2 sum(p g) + s) / (sum(p^2) + sum(g^2) + s) for each class, summed over batch and space together.

    Args:
        probabilities: p, [B, C, ...].
        labels: [B, ...], int64, 0 to C - 1; g is its one-hot code.
        valid: [B, ...], bool; the other pixels take no part.
        over_processes: adds up a tensor over processes.

    Returns:
        [C], background included. A class that is absent from the labels costs about 1 unless it is predicted nowhere.
    """
    weight = valid.unsqueeze(1).to(probabilities.dtype)
    p = probabilities * weight
    g = torch.zeros_like(p).scatter_(1, labels.unsqueeze(1), weight)
    axes = [0, *range(2, p.ndim)]
    overlap, sizes = over_processes(
        torch.stack([(p * g).sum(dim=axes), p.square().sum(dim=axes) + g.square().sum(dim=axes)])
    )
    loss: Tensor = 1 - (2 * overlap + _SMOOTH) / (sizes + _SMOOTH)
    return loss
