"""A fine-tuning that is interrupted at a known step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from nnunet_sfr.sam_stage.finetuning_run import FineTuningRun


@contextmanager
def interrupted_at_step(number: int) -> Iterator[None]:
    """Ctrl-C in the place of this step, counted from 1; the test fails if the run does not end by it."""
    step, taken = FineTuningRun.step, 0

    def count(run: FineTuningRun, *batch: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == number:
            raise KeyboardInterrupt
        return step(run, *batch)

    with mock.patch.object(FineTuningRun, "step", count), pytest.raises(KeyboardInterrupt):
        yield
