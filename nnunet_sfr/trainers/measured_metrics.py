"""Metrics for a model's card, from the files of sfr_evaluate and of nnU-Net's validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import VALIDATION, VALIDATION_SUMMARY, Fold, fold_name

SHOWN_METRICS = {"dice": "Dice", "hd95": "95HD", "asd": "ASD", "nsd": "NSD"}
"""Metrics of sfr_evaluate that a card shows, by the beginning of their names."""

MeanAndDeviation = tuple[float | None, float | None]


@dataclass(frozen=True)
class MeasuredMetrics:
    """One evaluation.

    Args:
        cases: on what was measured: ``6 cases``.
        protocol: how, in sentences.
        foreground_mean: by name of the metric, mean over the foreground classes.
        classes: by class and metric, mean and standard deviation over the cases; None where undefined.
    """

    cases: str
    protocol: str
    foreground_mean: Mapping[str, float]
    classes: Mapping[str, Mapping[str, MeanAndDeviation]]


def read_evaluation(file: Path) -> MeasuredMetrics:
    """The metrics that sfr_evaluate wrote.

    Args:
        file: its JSON.

    Raises:
        UserError: it is no such file.
    """
    metric = {"mean": float | None, "sd": float | None}
    content = read_json(
        file,
        "give the JSON file of sfr_evaluate",
        {"foreground_mean": {}, "classes": {...: {"metrics": {...: metric}}}, "cases": {}, "settings": {}, "rules": {}},
    )
    names = {name: _title(name) for name in content["foreground_mean"] if _title(name)}
    missing = content.get("missing_predictions") or []
    settings = ", ".join(f"{name} {value:g}" for name, value in content["settings"].items())
    protocol = (
        f"Measured by sfr_evaluate ({settings}) with truth and prediction of every case at full resolution: mean ± "
        "standard deviation over the cases. A class that is in one of the two alone counts with a Dice of 0 and the "
        "image's diagonal as distance; one that is in neither counts nowhere."
    )
    if missing:
        protocol += f" {len(missing)} cases have no prediction and are left out."
    return MeasuredMetrics(
        cases=f"{len(content['cases'])} cases",
        protocol=protocol,
        foreground_mean={
            title: content["foreground_mean"][name]
            for name, title in names.items()
            if content["foreground_mean"][name] is not None
        },
        classes={
            label: {
                title: (one["metrics"][name]["mean"], one["metrics"][name]["sd"])
                for name, title in names.items()
                if name in one["metrics"]
            }
            for label, one in content["classes"].items()
        },
    )


def _title(name: str) -> str:
    """A metric's name with its unit, as a card shows it; "" for those that it does not."""
    metric, _, unit = name.partition("_")
    return f"{SHOWN_METRICS[metric]} ({unit})" if metric in SHOWN_METRICS and unit else SHOWN_METRICS.get(metric, "")


def read_validation(model_folder: Path, folds: Sequence[Fold], labels: Mapping[str, Any]) -> MeasuredMetrics | None:
    """nnU-Net's validation on the cases that the folds held out; None without one.

    Fold ``all`` holds none out, and its validation says nothing of new cases.

    Args:
        model_folder: with ``fold_<f>/validation/summary.json``.
        folds: that were exported.
        labels: of ``dataset.json``.

    Raises:
        UserError: a summary is damaged.
    """
    held_out = [fold for fold in folds if fold != "all"]
    files = [model_folder / fold_name(fold) / VALIDATION / VALIDATION_SUMMARY for fold in held_out]
    found = [(fold, file) for fold, file in zip(held_out, files, strict=True) if file.is_file()]
    if not found:
        return None
    remedy = "validate this fold again with nnUNetv2_train --val, or delete it"
    cases: list[Mapping[str, Any]] = []
    for _, file in found:
        cases += read_json(file, remedy, {"metric_per_case": [{"metrics": {...: {}}}]})["metric_per_case"]
    classes = {}
    for name, value in labels.items():
        key = str(tuple(value)) if isinstance(value, list) else str(value)
        dice = [case["metrics"][key]["Dice"] for case in cases if key in case["metrics"]]
        known = [one for one in dice if one is not None and np.isfinite(one)]
        if key != "0" and known:
            classes[name] = {"Dice": (float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)}
    means = [one["Dice"][0] for one in classes.values()]
    shown = ", ".join(str(fold) for fold, _ in found)
    return MeasuredMetrics(
        cases=f"{len(cases)} labelled cases, each held out of the training that segmented it",
        protocol=f"nnU-Net's own validation of fold {shown}, student's weights: mean ± standard deviation over cases.",
        foreground_mean={"Dice": float(np.mean([mean for mean in means if mean is not None]))} if means else {},
        classes=classes,
    )
