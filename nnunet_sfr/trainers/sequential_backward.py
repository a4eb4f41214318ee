"""One optimiser step from several backward passes: mixed precision, several GPUs, modules beside the network.

The passes come one after the other, so that only one graph is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from nnunet_sfr.trainers.distributed import average_gradients
from nnunet_sfr.trainers.student_and_teacher import StudentAndTeacher

Losses = Mapping[str, torch.Tensor]
"""Scalar losses by name, before their weights."""


class SequentialBackward(StudentAndTeacher):
    """Losses in groups, each back-propagated before the next is computed, and then one step."""

    def _zero_gradients(self) -> None:
        for module in (self.network, self.extra_modules):
            module.zero_grad(set_to_none=True)

    def _backward_in_turn(self, groups: Iterable[Losses], weights: Mapping[str, float]) -> dict[str, float]:
        """Back-propagate each group of losses before the next is computed; returns the losses, added up by name."""
        values: dict[str, float] = {}
        iterator = iter(groups)
        while True:
            with self._autocast():
                group = next(iterator, None)
                if group is None:
                    return values
                if not group:
                    continue
                total = torch.stack([weights[name] * loss for name, loss in group.items()]).sum()
            self._backward(total)
            for name, loss in group.items():
                values[name] = values.get(name, 0.0) + to_number(loss)

    def _autocast(self) -> AbstractContextManager[Any]:
        """nnU-Net's rule: mixed precision on CUDA alone."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _without_gradient_sync(self) -> AbstractContextManager[Any]:
        return self.network.no_sync() if self.is_ddp else nullcontext()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        """nnU-Net's step: gradients clipped to a norm of 12."""
        if self.is_ddp:
            average_gradients(self.extra_modules)  # DDP does this for the network alone
        self._step(self.optimizer, self.network)
        if self.extra_optimizer is not None:
            for group in self.extra_optimizer.param_groups:
                group["lr"] = self.optimizer.param_groups[0]["lr"]
            self._step(self.extra_optimizer, self.extra_modules)
        if self.grad_scaler is not None:
            self.grad_scaler.update()

    def _step(self, optimizer: torch.optim.Optimizer, modules: nn.Module) -> None:
        if all(parameter.grad is None for parameter in modules.parameters()):
            return  # a method may leave its modules out of a step, but a scaler refuses an optimiser without gradients
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(modules.parameters(), 12)
        if self.grad_scaler is not None:
            self.grad_scaler.step(optimizer)
        else:
            optimizer.step()


def to_number(loss: torch.Tensor) -> float:
    """A scalar for the log."""
    return float(loss.detach())
