"""Differences between what student and teacher predict."""

from __future__ import annotations

import torch


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
