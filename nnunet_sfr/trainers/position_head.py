"""Which place of the patch a cube was cut from: MagicNet's second task for the encoder.

The method is MagicNet's (D. Chen et al., CVPR 2023; DeepMed-Lab-ECNU/MagicNet@316d7ee9).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class PositionHead(nn.Module):
    """A linear layer on the flattened bottleneck of each cube.

    Args:
        bottleneck_channels: of the network.
        bottleneck_size: voxels per spatial axis of *one cube* at the bottleneck.
        num_cubes: positions in a patch.
    """

    def __init__(self, bottleneck_channels: int, bottleneck_size: tuple[int, ...], num_cubes: int) -> None:
        super().__init__()
        self.bottleneck_shape = (bottleneck_channels, *bottleneck_size)
        self.linear = nn.Linear(math.prod(self.bottleneck_shape), num_cubes)

    def forward(self, bottleneck: torch.Tensor) -> torch.Tensor:
        """Logits of the positions.

        Args:
            bottleneck: (N, channels, *bottleneck_size), N cubes.

        Returns:
            (N, num_cubes).

        Raises:
            ValueError: the cubes have another shape.
        """
        if bottleneck.shape[1:] != self.bottleneck_shape:
            raise ValueError(f"expected cubes of shape {self.bottleneck_shape}, got {tuple(bottleneck.shape[1:])}")
        logits: torch.Tensor = self.linear(bottleneck.flatten(1))
        return logits


def position_loss(head: nn.Module, bottleneck: torch.Tensor, num_cubes: int) -> torch.Tensor:
    """Cross-entropy of the position of every cube of a batch.

    The authors shuffle the cubes before the head. A linear head looks at every cube on its own and the mean over the
    cubes has no order, so that changes nothing and is left out. (They also number the positions with the first axis
    fastest, which only renames the head's outputs.)

    Args:
        head: a :class:`PositionHead`, as it is or wrapped.
        bottleneck: (B * num_cubes, channels, *bottleneck_size) in the order of
            :func:`nnunet_sfr.trainers.cubes.split_cubes`, gradients flow.
        num_cubes: positions in a patch.

    Returns:
        a scalar.

    Raises:
        ValueError: the cubes do not fill a whole number of patches.
    """
    items, remainder = divmod(bottleneck.shape[0], num_cubes)
    if remainder:
        raise ValueError(f"expected {num_cubes} cubes per patch, got {bottleneck.shape[0]} cubes in all")
    positions = torch.arange(num_cubes, device=bottleneck.device).repeat(items)
    return F.cross_entropy(head(bottleneck), positions)
