"""The tables of the paper, with what our studies came to beside its numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import aligned_table
from benchmarks.studies.study import ALL_LABELS, with_defaults
from nnunet_sfr.json_files import Shape, read_json

BENCHMARKS = Path(__file__).resolve().parent.parent
TABLES = BENCHMARKS / "paper_tables.json"
PERCENT = ("dice", "jaccard")
FIXED_PATCH, TABLE_OF_FIXED_PATCH = "ExperimentPlanner96", "VI"
"""The planner of the paper's variant with patches of 96 x 96 x 96, and its table."""
NOTE = (
    "Dice and Jaccard in %, ASD and 95HD in voxels; means over test cases, ours over seeds too. Ours are empty where "
    "no study was run: results.json below --output, and benchmarks/results. An empty prediction counts as the worst "
    "possible here and as the best possible in the authors' code (docs/evaluation.md). Where the numbers of cases "
    "differ, ours are of other lists: the paper tests on 20 (LA), 60 (BraTS), 12 (BTCV) and 20 (MACT) cases."
)

RESULTS_SHAPE: Shape = {
    "study": {"labelled": int, "spacing": float | None, "iterations": int, "planner": str},
    "cases": {"labelled": int, "unlabelled": int, "test": int},
    "trainers": {...: {...: {...: float}}},
}
"""What the tables need of a study's results: for each trainer, metric and seed the mean over the test cases."""


def paper_datasets() -> list[str]:
    """Data sets that have tables in the paper."""
    return list(_tables())


def paper_table(dataset: str, output: Path) -> str:
    """A row of the paper for each method and number of labelled cases, and one of ours for each study of it.

    Args:
        dataset: one of :func:`paper_datasets`.
        output: folder of studies; those in ``benchmarks/results`` count too.
    """
    tables = _tables()[dataset]
    studies = list(_studies(dataset, output))
    columns: list[list[str]] = tables["columns"]
    cells = [["table", "labelled", "method", "from", *(title for title, _ in columns)]]
    for row in tables["rows"]:
        place = [row["table"], f"{row['labelled']}/{row['unlabelled']}", row["method"]]
        cells.append([*place, "paper", *map(_number, row["values"])])
        found = [study for study in studies if _matches(row, study)]
        ours = row["ours"]
        for study in found:
            cells.append([row["table"], _labelled(study, row), row["method"], _told(study)])
            cells[-1] += _values(study, ours, columns)
        if not found:
            cells.append([*place, "ours", *[""] * len(columns)])
    return f"{aligned_table(cells)}\n\n{NOTE}"


def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = read_json(TABLES, "check out the repository again")["datasets"]
    return tables


def _studies(dataset: str, output: Path) -> Iterator[dict[str, Any]]:
    """Numbers of every study of a data set, a study that lies in both places once."""
    seen: set[str] = set()
    for file in (*sorted(output.glob("*/results.json")), *sorted((BENCHMARKS / "results").glob("*.json"))):
        content = read_json(file, "write it again with --table-only", RESULTS_SHAPE)
        study = with_defaults(content["study"])
        told = json.dumps(study, sort_keys=True)
        if study["dataset"] == dataset and told not in seen:
            seen.add(told)
            yield {**content, "study": study}


def _matches(row: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether a study ran what a row is about: the trainer, the labelled cases and the kind of patches."""
    study, trainer = content["study"], row["ours"]
    if trainer not in content["trainers"]:
        return False
    if (study["planner"] == FIXED_PATCH) != (row["table"] == TABLE_OF_FIXED_PATCH):
        return False
    return bool(trainer == ALL_LABELS or study["labelled"] == row["labelled"])


def _labelled(content: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Labelled and unlabelled cases of ours, which may be others than the paper's."""
    cases = content["cases"]
    if row["ours"] == ALL_LABELS:
        return f"{cases['labelled'] + cases['unlabelled']}/0"
    return f"{cases['labelled']}/{cases['unlabelled'] if row['unlabelled'] else 0}"


def _told(content: Mapping[str, Any]) -> str:
    study = content["study"]
    spacing = "planned spacing" if study["spacing"] is None else f"{study['spacing']:g} mm"
    sam = ", a SAM for each seed" if study["sam_per_seed"] else ""
    return f"ours: {content['cases']['test']} tested, {spacing}, {study['iterations']} iterations{sam}"


def _values(content: Mapping[str, Any], trainer: str, columns: Sequence[Sequence[str]]) -> list[str]:
    metrics, classes = content["trainers"][trainer], content.get("classes", {}).get(trainer, {})
    values = []
    for _, name in columns:
        of_seeds = classes.get(name) or metrics.get(name)
        factor = 100 if name in classes or name in PERCENT else 1
        values.append(_number(factor * statistics.fmean(of_seeds.values()) if of_seeds else None))
    return values


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
