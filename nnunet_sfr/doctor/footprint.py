"""The memory that a network takes, counted without taking it.

Fake tensors have a shape, a type and a device but no content: a step of any size runs in a second on any machine, and
autocast gives every operation the type that it has on the device. What is counted is every block that torch's allocator
would hand out; workspaces that libraries take beside it are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BACKWARD_BUFFERS = 2
"""Blocks of the largest size that a backward pass holds besides what the forward pass kept: the gradients of output and
input of one operation. The estimates of ten SAMs and nnU-Nets lie 0 to 20 % above the peaks of real steps."""


@dataclass(frozen=True)
class ForwardPass:
    """Bytes of a forward pass.

    Args:
        trainable: of the weights that have a gradient.
        kept: when the pass ends: weights, input, output, and what a backward pass reads.
        peak: at its highest.
        largest: of the largest single block.
    """

    trainable: int
    kept: int
    peak: int
    largest: int

    def training_peak(self, *, optimizer_states: int) -> int:
        """Bytes of a training step at its highest.

        Args:
            optimizer_states: numbers that the optimiser keeps for every weight: 1 for SGD's momentum, 2 for Adam.
        """
        passes = max(self.peak, self.kept + BACKWARD_BUFFERS * self.largest)
        return passes + (1 + optimizer_states) * self.trainable


def forward_pass(
    network: nn.Module, input_shape: Sequence[int], device: torch.device, *, gradients: bool
) -> ForwardPass:
    """Count a forward pass.

    Args:
        network: of any device, the meta device too; it is not changed. In training mode or not, as it is.
        input_shape: of its one input.
        device: that is asked about; it need not exist, unless it is a GPU and the network uses autocast.
        gradients: whether a backward pass is to follow.
    """
    ledger = _Ledger()
    # what is no CUDA device is counted as a CPU; the network's own autocast says in which precision it computes
    fake = torch.device("cuda" if device.type == "cuda" else "cpu")
    # allow: the network's own tensors, all of which are replaced
    with FakeTensorMode(allow_non_fake_inputs=True), ledger, nullcontext() if gradients else torch.no_grad():
        weights = _without_content(dict(network.named_parameters()), fake)
        buffers = _without_content(dict(network.named_buffers()), fake)
        # input and output live until everything is counted
        batch = torch.empty(tuple(input_shape), device=fake)
        output = functional_call(network, {**weights, **buffers}, (batch,))
        counted = ForwardPass(
            trainable=sum(weight.nbytes for weight in weights.values() if weight.requires_grad),
            kept=ledger.now,
            peak=ledger.peak,
            largest=ledger.largest,
        )
        del batch, output
    return counted


def _without_content(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device, requires_grad=tensor.requires_grad)
        for name, tensor in tensors.items()
    }


class _Ledger(TorchDispatchMode):
    """Adds up the storages that operations return, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._alive: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._alive:  # a view
            return
        self._alive.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self.largest = max(self.largest, size)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.now -= size
