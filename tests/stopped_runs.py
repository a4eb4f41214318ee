"""Runs that are killed and resumed, for tests that compare them with runs that were left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn


def weights(module: nn.Module) -> torch.Tensor:
    """All parameters as one vector, a copy."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def train_until_killed(trainer: Any, *, epoch: int) -> None:
    """A training that dies at the first step of an epoch, after the checkpoint of the one before."""
    step = trainer.train_step

    def die(batch: Any) -> Any:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        return step(batch)

    trainer.train_step = die
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()


def resume(build: Callable[[], Any]) -> Any:
    """A new trainer with the latest checkpoint, in a process whose generators were doing something else."""
    np.random.seed(7)
    torch.manual_seed(7)
    trainer = build()
    trainer.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    return trainer


def require_same_training(ours: Any, expected: Any) -> None:
    """Weights and logged losses are equal to the last bit."""
    for module in ("student", "teacher", "extra_modules"):
        for name, value in getattr(ours, module).state_dict().items():
            assert torch.equal(value, getattr(expected, module).state_dict()[name]), f"{module}.{name}"
    log, expected_log = (trainer.logger.local_logger.my_fantastic_logging for trainer in (ours, expected))
    for term in (*expected.logged_terms, "train_losses", "val_losses"):
        assert log[term] == expected_log[term], term
        assert len(log[term]) == expected.num_epochs
