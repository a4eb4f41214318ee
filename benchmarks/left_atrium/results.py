"""What the runs of a study came to: the metrics of every test case, by trainer and seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.left_atrium.study import KNOWN_TRAINERS, Workspace
from nnunet_sfr.atomic import write_json
from nnunet_sfr.evaluation.folders import evaluate_folder
from nnunet_sfr.json_files import read_json

METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm", "nsd")
TARGET = "left_atrium"


@dataclass(frozen=True)
class TrainerResults:
    """All finished runs of one trainer.

    Args:
        trainer: its name, without epochs.
        cases: seed -> test case -> metric -> value.
        records: seed -> what the training measured.
    """

    trainer: str
    cases: Mapping[int, Mapping[str, Mapping[str, float]]]
    records: Mapping[int, Mapping[str, Any]]

    def seed_means(self, metric: str) -> dict[int, float]:
        """Mean over the test cases, by seed."""
        return {seed: statistics.fmean(case[metric] for case in cases.values()) for seed, cases in self.cases.items()}

    def case_means(self, metric: str, seeds: Iterable[int]) -> dict[str, float]:
        """Mean over seeds, by test case."""
        chosen = [self.cases[seed] for seed in seeds]
        return {case: statistics.fmean(cases[case][metric] for cases in chosen) for case in sorted(chosen[0])}

    def mean_record(self, key: str) -> float:
        return statistics.fmean(record[key] for record in self.records.values())


def read_results(workspace: Workspace) -> list[TrainerResults]:
    """Every trainer with a finished run, in the order of :data:`KNOWN_TRAINERS`; evaluates what is not yet."""
    results = []
    for trainer in KNOWN_TRAINERS:
        seeds = workspace.seeds(trainer)
        if seeds:
            records = {seed: read_json(workspace.record(trainer, seed), "delete it to run again") for seed in seeds}
            results.append(TrainerResults(trainer, {seed: _cases(workspace, trainer, seed) for seed in seeds}, records))
    return results


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation (n - 1); None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _cases(workspace: Workspace, trainer: str, seed: int) -> dict[str, dict[str, float]]:
    file = workspace.run(trainer, seed).folder / "metrics.json"
    if not file.is_file():
        raw = workspace.base.raw_dataset
        dataset_json = read_json(raw / "dataset.json", "build the data set again")
        evaluation = evaluate_folder(raw / "labelsTs", workspace.predictions(trainer, seed), dataset_json)
        values = {
            case: {metric: getattr(classes[TARGET], metric) for metric in METRICS}
            for case, classes in evaluation.cases.items()
        }
        write_json(values, file)
    return read_json(file, "delete it to evaluate again")
