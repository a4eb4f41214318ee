"""Schedules against the authors' own code."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from nnunet_sfr.trainers.schedules import consistency_weight, sigmoid_ramp_up, teacher_decay
from tests.conftest import Golden

SCHEDULE_TOLERANCE = 1e-12


def test_ramp_equals_the_authors(golden: Callable[[str], Golden]) -> None:
    losses = golden("losses")
    ours = [[sigmoid_ramp_up(t, length) for length in losses["ramps.length"]] for t in losses["ramps.current"]]
    np.testing.assert_allclose(ours, losses["ramps.sigmoid"], rtol=0, atol=SCHEDULE_TOLERANCE)


def test_consistency_weight_equals_sfr_at_the_start_of_its_blocks(golden: Callable[[str], Golden]) -> None:
    losses = golden("losses")
    # SFR holds the weight for 150 iterations; R = 40 blocks of 150 are the whole run of 6,000 iterations
    blocks = losses["schedule.iter_num"] // 150 * 150
    ours = [consistency_weight(int(t), total_iterations=6000, maximum=0.1, ramp_up_fraction=1.0) for t in blocks]
    assert len(set(ours)) > 5, "the golden iterations must spread over the ramp"
    np.testing.assert_allclose(ours, losses["schedule.consistency_acmt"], rtol=0, atol=SCHEDULE_TOLERANCE)


def test_consistency_weight_reaches_its_maximum_where_the_ramp_ends() -> None:
    weight = partial(consistency_weight, total_iterations=1000, maximum=0.3, ramp_up_fraction=0.4)
    assert weight(400) == 0.3
    assert weight(399) < 0.3
    assert weight(0) == pytest.approx(0.3 * math.exp(-5))
    assert consistency_weight(0, total_iterations=1000, maximum=0.3, ramp_up_fraction=0.0) == 0.3


@pytest.mark.parametrize("name", ["ema0", "ema97"])
def test_teacher_decay_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    losses = golden("losses")
    ours = [teacher_decay(int(step), 0.99) for step in losses[f"{name}.global_step"]]
    np.testing.assert_allclose(ours, losses[f"{name}.alpha"], rtol=0, atol=SCHEDULE_TOLERANCE)
