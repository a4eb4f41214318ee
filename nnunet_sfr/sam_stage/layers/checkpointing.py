"""Activation checkpointing of transformer blocks: less memory in training for more time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let each block keep its input alone and compute its activations again in the backward pass, in place.

    Outputs, gradients and the names of parameters stay. Without gradients nothing changes. Calling it twice does no
    harm.

    Args:
        blocks: take and give one tensor; batch norm in them must be in evaluation mode, or it would see every batch
            twice.
    """
    for block in blocks:
        if not isinstance(block.forward, _Recomputed):
            block.forward = _Recomputed(block.forward)


class _Recomputed:
    """A block's forward that is run again when the backward pass needs its activations."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward

    def __call__(self, tokens: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._forward(tokens)
        recomputed: Tensor = checkpoint(self._forward, tokens, use_reentrant=False)
        return recomputed
