"""What the ranks of a DDP training have to agree on beyond the network, which DDP itself takes care of."""

from __future__ import annotations

import torch
from torch import distributed, nn


@torch.no_grad()
def broadcast(module: nn.Module) -> None:
    """Give every rank the first rank's parameters and buffers."""
    for value in (*module.parameters(), *module.buffers()):
        distributed.broadcast(value, src=0)


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the ranks, as DDP does; a rank without one counts as zero."""
    for parameter in module.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.copy_(mean_over_ranks(parameter.grad))


@torch.no_grad()
def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of a constant over the ranks; the value itself where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
