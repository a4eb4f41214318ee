"""How far student and teacher are apart, and how unsure one of them is."""

from __future__ import annotations

import math

import torch

from nnunet_sfr.trainers.distributed import mean_over_ranks


def probabilities(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Softmax over the class axis, or a sigmoid per channel where nnU-Net trains (overlapping) regions.

    Args:
        logits: (B, C, ...).
    """
    return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


def squared_difference(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, *, regions: bool = False
) -> torch.Tensor:
    """(p_student - p_teacher)^2, unreduced.

    Args:
        student_logits: (B, C, ...), gradients flow.
        teacher_logits: (B, C, ...), taken as constant.

    Returns:
        (B, C, ...).
    """
    target = probabilities(teacher_logits.detach().float(), regions=regions)
    return (probabilities(student_logits.float(), regions=regions) - target) ** 2


def selective_consistency(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, selected: torch.Tensor, *, regions: bool = False
) -> torch.Tensor:
    """sum m (p_s - p_t)^2 / (sum m + 1e-16) with the mask m repeated over the classes.

    With DDP the denominator is the mean over the ranks, so that the averaged gradient is that of the joined batch.

    Args:
        student_logits: (B, C, ...), gradients flow.
        teacher_logits: (B, C, ...), constant.
        selected: (B, 1, ...) or (B, C, ...) booleans.

    Returns:
        a scalar, 0 where nothing is selected.
    """
    difference = squared_difference(student_logits, teacher_logits, regions=regions)
    mask = selected.expand_as(difference).float()
    return (mask * difference).sum() / (mean_over_ranks(mask.sum()) + 1e-16)


def entropy_of_logits(logits: torch.Tensor, *, regions: bool = False) -> torch.Tensor:
    """-sum_c p_c log(p_c + 1e-6) / log C, between 0 (certain) and 1.

    Each region is a question of its own with two answers: there C = 2, and no sum over the channels. The confidence of
    a case (:func:`nnunet_sfr.confidence.normalised_entropy`) has the mean over the regions, and no 1e-6.

    Args:
        logits: (B, C, ...).

    Returns:
        (B, 1, ...), or (B, C, ...) for regions.
    """
    return entropy_of(probabilities(logits.float(), regions=regions), regions=regions)


def entropy_of(p: torch.Tensor, *, regions: bool = False) -> torch.Tensor:
    """:func:`entropy_of_logits` of probabilities (B, C, ...).

    Args:
        p: probabilities (B, C, ...), between 0 and 1.
        regions: whether they are those of regions, which do not add up to 1.
    """
    if regions:
        return (_surprise(p) + _surprise(1 - p)) / math.log(2)
    return _surprise(p).sum(dim=1, keepdim=True) / math.log(p.shape[1])


def _surprise(p: torch.Tensor) -> torch.Tensor:
    return -p * torch.log(p + 1e-6)
