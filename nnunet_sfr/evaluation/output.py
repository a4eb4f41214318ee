"""The files of an evaluation: everything as JSON, and one row per case and class as CSV."""

from __future__ import annotations

import csv
import dataclasses
import math
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing, require_writable, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED
from nnunet_sfr.evaluation.comparison import Comparison, PairedDifference
from nnunet_sfr.evaluation.folders import Evaluation
from nnunet_sfr.evaluation.rules import RULES
from nnunet_sfr.evaluation.summary import METRICS, class_summaries, foreground_mean

_LIBRARIES = ("nnunetv2", "monai", "numpy")


def check_output(file: Path) -> None:
    """Refuse a place where nothing can be written, before the work.

    Raises:
        UserError: saying which.
    """
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name a file with -o")
    require_writable(file.parent)


def csv_beside(file: Path) -> Path:
    """The CSV file that belongs to a JSON file."""
    return file.with_suffix(".csv")


def write(evaluation: Evaluation, comparison: Comparison | None, file: Path) -> None:
    """Write ``file`` and its CSV; each appears whole or not at all.

    Args:
        evaluation: of one model.
        comparison: with another one, if there is one.
        file: JSON to write.
    """
    _write_csv(evaluation, csv_beside(file))
    write_json(_without_nan(_as_json(evaluation, comparison)), file)


def _as_json(evaluation: Evaluation, comparison: Comparison | None) -> dict[str, Any]:
    summary = class_summaries(evaluation)
    unit = evaluation.unit
    names = {metric: name_with_unit(metric, unit) for metric in METRICS}
    content = {
        "truth": str(evaluation.truth.resolve()),
        "prediction": str(evaluation.prediction.resolve()),
        "units": _units(unit),
        "rules": RULES,
        "settings": {name_with_unit("nsd_tolerance_mm", unit): evaluation.nsd_tolerance_mm},
        "labels": evaluation.classes.labels,
        "ignore_label": evaluation.classes.ignore_label,
        "made_by": {"nnunet_sfr": __version__, **{library: metadata.version(library) for library in _LIBRARIES}},
        "missing_predictions": evaluation.missing,
        "warnings": evaluation.warnings,
        "foreground_mean": {names[metric]: value for metric, value in foreground_mean(summary).items()},
        "classes": {
            name: {
                **dataclasses.asdict(one),
                "metrics": {names[metric]: dataclasses.asdict(value) for metric, value in one.metrics.items()},
            }
            for name, one in summary.items()
        },
        "cases": {
            case: {name: _rename(dataclasses.asdict(metrics), unit) for name, metrics in classes.items()}
            for case, classes in evaluation.cases.items()
        },
    }
    return content if comparison is None else {**content, "comparison": _comparison(comparison, unit)}


def _comparison(comparison: Comparison, unit: str) -> dict[str, Any]:
    def row(metrics: dict[str, PairedDifference]) -> dict[str, Any]:
        return _rename(
            {name: {**dataclasses.asdict(value), "verdict": value.verdict} for name, value in metrics.items()}, unit
        )

    return {
        "other": str(comparison.other.prediction.resolve()),
        "difference": "prediction - other, in the cases that both have",
        "interval": {"method": "percentile bootstrap", "level": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
        "cases": comparison.cases,
        "missing_predictions": comparison.other.missing,
        "warnings": comparison.other.warnings,
        "foreground_mean": row(comparison.foreground_mean),
        "classes": {name: row(metrics) for name, metrics in comparison.classes.items()},
    }


def name_with_unit(name: str, unit: str) -> str:
    """The name of a field that ends in ``_mm``, for images that may have pixels only.

    Args:
        name: of a field.
        unit: ``mm`` or ``px``.
    """
    return f"{name.removesuffix('_mm')}_{unit}" if name.endswith("_mm") else name


def _rename(values: dict[str, Any], unit: str) -> dict[str, Any]:
    return {name_with_unit(name, unit): value for name, value in values.items()}


def _units(unit: str) -> dict[str, str]:
    units = {}
    for metric in METRICS:
        name = name_with_unit(metric, unit)
        if metric.endswith("_mm"):
            units[name] = unit
        elif metric.endswith("_ml"):
            units[name] = "ml"
        else:
            units[name] = "voxels" if metric in ("tp", "fp", "fn") else "fraction"
    return units


def _write_csv(evaluation: Evaluation, file: Path) -> None:
    header = ["case", "class", *(name_with_unit(metric, evaluation.unit) for metric in METRICS)]
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for case, classes in evaluation.cases.items():
            for name, metrics in classes.items():
                values = [getattr(metrics, metric) for metric in METRICS]
                writer.writerow([case, name, *("" if math.isnan(value) else value for value in values)])


def _without_nan(content: Any) -> Any:
    """The same with null for NaN, which JSON has no number for."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
