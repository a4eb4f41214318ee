"""The teacher: a moving average of the student's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """theta' <- alpha theta' + (1 - alpha) theta for parameters; buffers are copied.

    Buffers (running statistics of batch norm) are the student's, so that the teacher's statistics belong to weights
    close to its own; the authors leave the teacher those of its own forward passes (SFR train_retraining.py@dc32304b).

    Args:
        teacher: changed in place.
        student: the same architecture.
        decay: alpha in [0, 1].
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - decay)
    for teacher_buffer, student_buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        teacher_buffer.copy_(student_buffer)


def freeze(teacher: nn.Module) -> nn.Module:
    """Evaluation mode and no gradients: the teacher learns through :func:`update_teacher` alone."""
    return teacher.eval().requires_grad_(False)


def add_clipped_noise(images: torch.Tensor, *, std: float, clip: float, relative: bool) -> torch.Tensor:
    """x + clamp(N(0, std^2), -clip, clip), the perturbation of the teacher's input.

    Args:
        images: (B, C, ...) normalised intensities.
        std: standard deviation of the noise.
        clip: the noise is clamped to plus and minus this value.
        relative: the two are in units of each channel's standard deviation; needed where intensities are not z-scored.
    """
    noise = torch.randn_like(images).mul_(std).clamp_(-clip, clip)
    if relative:
        axes = [axis for axis in range(images.ndim) if axis != 1]
        noise *= images.std(dim=axes, keepdim=True)
    return images + noise
