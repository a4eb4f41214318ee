"""Schedules of semi-supervised training: pure functions of the iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sigmoid_ramp_up(current: float, length: float) -> float:
    """exp(-5 (1 - min(t, R) / R)^2), from e^-5 at t = 0 to 1 at t >= R; 1 everywhere when R is 0.

    Args:
        current: t, in the same unit as ``length``.
        length: R.
    """
    if length == 0:
        return 1.0
    phase = 1.0 - min(max(current, 0.0), length) / length
    return math.exp(-5.0 * phase * phase)


def consistency_weight(iteration: int, *, total_iterations: int, maximum: float, ramp_up_fraction: float) -> float:
    """w(t) = w_max * ramp(t, R) with R = ``ramp_up_fraction`` of the run.

    The authors hold the weight constant for 150 iterations at a time (SFR train_retraining.py@dc32304b); here it
    follows every iteration, so that it does not depend on the length of the run.

    Args:
        iteration: t, from 0.
        total_iterations: T.
        maximum: w_max.
        ramp_up_fraction: R / T.
    """
    return maximum * sigmoid_ramp_up(iteration, ramp_up_fraction * total_iterations)


def falling_share(progress: float, *, falls_from: float, final_share: float) -> float:
    """What is left of a weight that stays 1 until ``falls_from`` and falls linearly to ``final_share`` at the end.

    Args:
        progress: share of the run that is done, from 0 to 1.
        falls_from: share of the run after which it falls, below 1.
        final_share: at the end of the run.
    """
    fallen = min(max((progress - falls_from) / (1.0 - falls_from), 0.0), 1.0)
    return 1.0 - (1.0 - final_share) * fallen


def teacher_decay(iteration: int, maximum: float) -> float:
    """alpha = min(1 - 1 / (t + 1), maximum): the teacher starts as the student and averages over ever more of it.

    Args:
        iteration: t, counted from 0, before it is incremented.
        maximum: the decay of the long run (0.99).
    """
    return min(1.0 - 1.0 / (iteration + 1), maximum)


def rising_threshold(iteration: int, *, total_iterations: int, start: float, rise: float) -> float:
    """h(t) = start + rise * ramp(t, T), of ACMT (AC-MT train_ACMT_Ent_3D.py@62c7702c) and of UA-MT.

    Args:
        iteration: t, from 0.
        total_iterations: T.
        start: before the rise.
        rise: over the run.
    """
    return start + rise * sigmoid_ramp_up(iteration, total_iterations)


def relabelling_epochs(shares: Sequence[float], num_epochs: int) -> list[int]:
    """The epochs before which self-training labels the pool again, rising and without repetition.

    Args:
        shares: of the run, between 0 and 1; each is rounded to whole epochs, at least one after the start and one
            before the end.
        num_epochs: of the run; a single epoch has no place for it.
    """
    if num_epochs < 2:
        return []
    return sorted({min(max(round(share * num_epochs), 1), num_epochs - 1) for share in shares})
