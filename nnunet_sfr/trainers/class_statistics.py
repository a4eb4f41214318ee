"""How common each class was lately, and the pseudo-labels that MagicNet blends with it.

The method is MagicNet's (D. Chen et al., CVPR 2023; DeepMed-Lab-ECNU/MagicNet@316d7ee9): where the teacher sees a
common class, the prediction made cube by cube is believed; where it sees a rare one, the teacher is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class ClassStatistics:
    """Voxels per predicted class in the last finished window of iterations.

    A finished window replaces the one before; nothing is carried over, and the background is counted (as in MagicNet
    cube_utils.py@316d7ee9, OrganClassLogger). Under DDP a window is summed over the ranks when it is finished, so all
    ranks must add the same number of times.

    Args:
        num_classes: with the background.
        window: iterations per window (20 in MagicNet).
    """

    def __init__(self, num_classes: int, window: int) -> None:
        self.num_classes = num_classes
        self.window = window
        self._counts = torch.zeros(num_classes, dtype=torch.int64)
        self._iterations = 0
        self._finished = torch.zeros(num_classes, dtype=torch.int64)
        self._finished_windows = 0

    def add(self, classes: torch.Tensor) -> None:
        """Count the voxels of one iteration.

        Args:
            classes: integers in [0, num_classes), any shape. The counts move to its device and stay there.

        Raises:
            ValueError: there is a class that does not exist.
        """
        counts = torch.bincount(classes.flatten(), minlength=self.num_classes)
        if counts.numel() != self.num_classes:
            raise ValueError(f"expected classes below {self.num_classes}, got {counts.numel() - 1}")
        self._counts = self._counts.to(counts.device) + counts
        self._iterations += 1
        if self._iterations >= self.window:
            self._finish_window()

    def class_weights(self, temperature: float = 1.0) -> torch.Tensor | None:
        """counts^(1/T), relative to that of the commonest class.

        Args:
            temperature: T > 0; a higher one brings the classes closer together.

        Returns:
            (num_classes,) float32 in [0, 1], 0 for a class without voxels; None until a window is finished.

        Raises:
            ValueError: the temperature is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        if self._finished_windows == 0:
            return None
        frequencies = self._finished.float() ** (1.0 / temperature)
        # a window without any voxel gives zeros, not 0/0
        return (frequencies / frequencies.max().clamp(min=1.0)).float()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and integers with which :meth:`load_state_dict` continues exactly here, within a window too.

        Under DDP the unfinished window is this rank's own.
        """
        return {
            "counts": self._counts.clone(),
            "iterations": self._iterations,
            "finished": self._finished.clone(),
            "finished_windows": self._finished_windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; tensors may have been saved on another device.

        Raises:
            ValueError: the state is of another number of classes.
        """
        if state["counts"].shape != (self.num_classes,):
            raise ValueError(f"expected statistics of {self.num_classes} classes, got {tuple(state['counts'].shape)}")
        self._counts = state["counts"].clone()
        self._iterations = state["iterations"]
        self._finished = state["finished"].clone()
        self._finished_windows = state["finished_windows"]

    def _finish_window(self) -> None:
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._counts)
        self._finished = self._counts
        self._finished_windows += 1
        self._counts = torch.zeros_like(self._finished)
        self._iterations = 0


def blend(
    teacher_logits: torch.Tensor, cube_logits: torch.Tensor, classes: torch.Tensor, class_weights: torch.Tensor
) -> torch.Tensor:
    """(1 - Omega) teacher + Omega cubes, with Omega the weight of the class that the teacher predicts in the voxel.

    The authors' cubes are misplaced before they are blended (see :func:`nnunet_sfr.trainers.cubes.join_cubes`); here
    ``cube_logits`` is where it belongs.

    Args:
        teacher_logits: (B, C, *spatial), gradients flow.
        cube_logits: (B, C, *spatial), from the cubes joined again, gradients flow.
        classes: (B, *spatial) int64, which class the teacher predicts.
        class_weights: (C,) in [0, 1], from :meth:`ClassStatistics.class_weights`; on any device.

    Returns:
        (B, C, *spatial) logits; at least of the precision of ``class_weights``.
    """
    omega = class_weights.to(classes.device)[classes].unsqueeze(1)
    return (1.0 - omega) * teacher_logits + omega * cube_logits
