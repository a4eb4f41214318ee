"""What the cases that were left out say about the labels of the unlabelled ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.crosscheck.left_out import LeftOutCase
from nnunet_sfr.evaluation.bootstrap import paired_bootstrap

ESTIMATOR = "flip_agreement"
"""The measure by which the Dice of the unlabelled cases is estimated."""
LIKELY, UNLIKELY = 0.70, 0.60
"""Expected Dice of SAM's labels from which a re-training on them is likely to help, and below which it is unlikely to:
labels of the left atrium with 0.73 to 0.82 helped with 1, 4 and 16 labelled cases, labels with 0.47 (1 labelled) and
0.66 (4) lost to plain nnU-Net (docs/results.md)."""

_MAYBE = float | None
SHAPE = {
    "classes": {...: {"name": str, "n": int, "mean": _MAYBE, "low": _MAYBE, "high": _MAYBE, "missed": int}},
    "cases": list,
    "mean": float,
    "low": _MAYBE,
    "high": _MAYBE,
    "expected": _MAYBE,
    "num_unlabelled": int,
    "verdict": str,
}
"""Of :meth:`Findings.to_json` in a file, as far as the report reads it."""


@dataclass(frozen=True)
class ClassFinding:
    """Dice of one class over the cases that were left out.

    Args:
        name: of the class.
        n: cases in which either map has it.
        mean: None if there are none.
        low: lower end of the 95 % bootstrap interval of the mean; None for fewer than two cases.
        high: upper end.
        missed: cases that have the class, in which SAM found none of it.
    """

    name: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    missed: int


@dataclass(frozen=True)
class MeasureFinding:
    """How well one measure of confidence tells good labels from bad ones.

    Args:
        rank_correlation: Spearman's, with the mean Dice of a case; None for fewer than three cases.
        points: (measure, mean Dice) of every case, sorted: the calibration curve.
    """

    rank_correlation: float | None
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Findings:
    """Everything that ``sfr_crosscheck`` reports.

    Args:
        folds: number of fine-tunings.
        cases: mean Dice of every case that was left out, worst first.
        classes: by label value, as text.
        mean: of the cases' mean Dice.
        low: lower end of its 95 % bootstrap interval; None for fewer than two cases.
        high: upper end.
        measures: by name.
        expected: Dice to expect in the unlabelled cases, if SAM has labelled them; else None.
        num_unlabelled: cases that ``expected`` is about.
        verdict: in one line.
    """

    folds: int
    cases: list[tuple[str, float]]
    classes: dict[str, ClassFinding]
    mean: float
    low: float | None
    high: float | None
    measures: dict[str, MeasureFinding]
    expected: float | None
    num_unlabelled: int
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """JSON types, by the names above."""
        return asdict(self)


def summarise(
    cases: Sequence[LeftOutCase],
    names: Mapping[str, str],
    unlabelled: Sequence[Mapping[str, Any]] = (),
) -> Findings:
    """Bring together what was found in all folds.

    Args:
        cases: that were left out, at least one with a class in either map.
        names: of every foreground label value, which is given as text.
        unlabelled: confidence records of the unlabelled cases.

    Raises:
        ValueError: no case has any class.
    """
    known = {case.identifier: case.mean_dice for case in cases}
    means = {identifier: value for identifier, value in known.items() if value is not None}
    if not means:
        raise ValueError("none of the cases that were left out has any foreground, and SAM found none")
    mean, low, high = _interval(list(means.values()))
    expected = expected_dice(cases, unlabelled)
    return Findings(
        folds=len({case.fold for case in cases}),
        cases=sorted(means.items(), key=lambda item: item[1]),
        classes={label: _of_class(cases, label, name) for label, name in names.items()},
        mean=mean,
        low=low,
        high=high,
        measures={name: finding for name in MEASURES if (finding := _of_measure(cases, name)) is not None},
        expected=expected,
        num_unlabelled=len(unlabelled),
        verdict=verdict(mean if expected is None else expected),
    )


def expected_dice(cases: Sequence[LeftOutCase], unlabelled: Sequence[Mapping[str, Any]]) -> float | None:
    """The Dice to expect in unlabelled cases: mean Dice of the cases that were left out, plus the difference between
    the two groups in :data:`ESTIMATOR`.

    This is a regression with a slope of 1, which a few cases can carry; agreement under flips is a Dice itself.

    Args:
        cases: that were left out.
        unlabelled: confidence records.

    Returns:
        between 0 and 1; None if a group has no case with the measure.
    """
    value = MEASURES[ESTIMATOR].value
    pairs = [(value(case.record), case.mean_dice) for case in cases]
    left_out = [(measure, dice) for measure, dice in pairs if measure is not None and dice is not None]
    of_unlabelled = [measure for measure in map(value, unlabelled) if measure is not None]
    if not left_out or not of_unlabelled:
        return None
    measures, dices = zip(*left_out, strict=True)
    return float(np.clip(np.mean(dices) + np.mean(of_unlabelled) - np.mean(measures), 0.0, 1.0))


def verdict(dice: float) -> str:
    """Whether SFR is likely to help, in one line.

    Args:
        dice: to expect of SAM's labels.
    """
    if dice >= LIKELY:
        return f"SFR is likely to help: SAM's labels have an expected Dice of {dice:.2f}"
    if dice >= UNLIKELY:
        return f"SFR may help: SAM's labels have an expected Dice of {dice:.2f}; compare with plain nnU-Net"
    return (
        f"SFR is unlikely to help: SAM's labels have an expected Dice of {dice:.2f}; label more cases, or take labels "
        "of another source (sfr_pseudolabel --from-model, --from-images)"
    )


def _of_class(cases: Sequence[LeftOutCase], label: str, name: str) -> ClassFinding:
    values = [value for case in cases if (value := case.dice.get(label)) is not None]
    missed = sum(case.dice.get(label) == 0 and not case.record["class_voxels"].get(label) for case in cases)
    if not values:
        return ClassFinding(name, 0, None, None, None, missed)
    return ClassFinding(name, len(values), *_interval(values), missed)


def _interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    mean, low, high = paired_bootstrap(values, np.zeros(len(values)))
    return (mean, None, None) if math.isnan(low) else (mean, low, high)


def _of_measure(cases: Sequence[LeftOutCase], name: str) -> MeasureFinding | None:
    pairs = [(MEASURES[name].value(case.record), case.mean_dice) for case in cases]
    points = sorted((measure, dice) for measure, dice in pairs if measure is not None and dice is not None)
    if not points:
        return None
    measures, dices = zip(*points, strict=True)
    varies = len(points) >= 3 and len(set(measures)) > 1 and len(set(dices)) > 1
    return MeasureFinding(float(stats.spearmanr(measures, dices).statistic) if varies else None, points)
