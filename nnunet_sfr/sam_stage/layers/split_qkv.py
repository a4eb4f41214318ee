"""A fused projection to query, key and value as three linear layers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class SplitQKV(nn.Module):
    """A fused projection as three linear layers, so that query and value can have adapters of their own.

    Args:
        fused: the linear layer whose output holds query, key and value.
        rows: of the fused output, those of query, key and value, each int64 [dim]; together every row once.

    Raises:
        ValueError: the rows are not each row of the layer once.
    """

    def __init__(self, fused: nn.Linear, rows: Sequence[Tensor]) -> None:
        super().__init__()
        # on the CPU also where the layer has no memory (device meta)
        order = torch.cat([part.cpu() for part in rows])
        if len(rows) != 3 or not torch.equal(order.sort().values, torch.arange(fused.out_features, device="cpu")):
            raise ValueError(f"query, key and value must be the {fused.out_features} rows of the layer, each once")
        self.q, self.k, self.v = (_select_rows(fused, part) for part in rows)
        self._rows = order
        # Runs of neighbouring rows are moved as a whole: selecting single columns is slow in the backward pass.
        runs = [_runs(part.tolist()) for part in rows]
        self._lengths = [[length for _, length in part] for part in runs]
        starts = [start for part in runs for start, _ in part]
        self._run_order = sorted(range(len(starts)), key=starts.__getitem__)

    def forward(self, tokens: Tensor) -> Tensor:
        """From [..., dim] to [..., fused output], in the order of the fused layer."""
        parts = (self.q(tokens), self.k(tokens), self.v(tokens))
        runs = [run for part, lengths in zip(parts, self._lengths, strict=True) for run in part.split(lengths, dim=-1)]
        return torch.cat([runs[index] for index in self._run_order], dim=-1)

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """One layer that computes the same; LoRA is added to the weights (to those of this module too)."""
        parts = [_merged(part) for part in (self.q, self.k, self.v)]
        position = self._rows.argsort()
        weight = torch.cat([part.weight for part in parts])[position.to(parts[0].weight.device)]
        fused = _empty_linear(parts[0], out_features=len(weight))
        fused.weight.copy_(weight)
        if fused.bias is not None:
            fused.bias.copy_(torch.cat([part.bias for part in parts])[position.to(weight.device)])
        return fused


def fuse_projections(network: nn.Module) -> None:
    """Replace every :class:`SplitQKV` within a network by one linear layer, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SplitQKV):
                setattr(module, name, child.fuse())


def _select_rows(fused: nn.Linear, rows: Tensor) -> nn.Linear:
    rows = rows.to(fused.weight.device)
    part = _empty_linear(fused, out_features=len(rows))
    with torch.no_grad():
        part.weight.copy_(fused.weight[rows])
        if fused.bias is not None:
            part.bias.copy_(fused.bias[rows])
    return part


def _empty_linear(like: nn.Linear, *, out_features: int) -> nn.Linear:
    """A layer with undefined weights and the inputs, bias (or none), device and precision of another."""
    layer: nn.Linear = nn.utils.skip_init(
        nn.Linear,
        like.in_features,
        out_features,
        bias=like.bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    return layer


def _merged(layer: nn.Module) -> nn.Linear:
    """The layer itself, or the one within an adapter of peft, which is added to its weights."""
    if isinstance(layer, nn.Linear):
        return layer
    # Not checked by its class: importing peft takes seconds.
    adapter: Any = layer
    if not adapter.merged:
        adapter.merge()
    base: nn.Linear = adapter.get_base_layer()
    return base


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """(first row, length) of each stretch of consecutive rows."""
    breaks = [index + 1 for index, (row, following) in enumerate(pairwise(rows)) if following != row + 1]
    edges = [0, *breaks, len(rows)]
    return [(rows[start], stop - start) for start, stop in pairwise(edges)]
