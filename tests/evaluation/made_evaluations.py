"""Evaluations with numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.evaluation.classes import Classes
from nnunet_sfr.evaluation.folders import Evaluation
from nnunet_sfr.evaluation.metrics import Metrics

NAN = float("nan")


def metrics(dice: float, hd95: float, *, tp: int = 5, fp: int = 1, fn: int = 1) -> Metrics:
    """Dice stands for Jaccard and NSD too, and the 95HD for every distance."""
    return Metrics(
        dice=dice,
        jaccard=dice,
        hd95_mm=hd95,
        asd_mm=hd95,
        assd_mm=hd95,
        nsd=dice,
        truth_ml=(tp + fn) / 1000,
        prediction_ml=(tp + fp) / 1000,
        tp=tp,
        fp=fp,
        fn=fn,
    )


BOTH_EMPTY = metrics(NAN, NAN, tp=0, fp=0, fn=0)
EMPTY_PREDICTION = metrics(0.0, 100.0, tp=0, fp=0, fn=7)
EMPTY_TRUTH = metrics(0.0, 100.0, tp=0, fp=7, fn=0)


def evaluation_of(cases: Mapping[str, Mapping[str, Metrics]], name: str = "prediction", **changes: Any) -> Evaluation:
    """An evaluation of the folder ``name``."""
    names = list(next(iter(cases.values())))
    values: dict[str, Any] = {
        "truth": Path("truth"),
        "prediction": Path(name),
        "classes": Classes({name: (value,) for value, name in enumerate(names, start=1)}, None),
        "cases": {case: dict(classes) for case, classes in cases.items()},
        "missing": (),
        "nsd_tolerance_mm": 2.0,
        "unit": "mm",
        "warnings": (),
    }
    return Evaluation(**{**values, **changes})
