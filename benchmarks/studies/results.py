"""What the runs of a study came to: the metrics of every test case and class, by trainer and seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import KNOWN_TRAINERS, StudyFolders
from nnunet_sfr.atomic import write_json
from nnunet_sfr.evaluation.folders import evaluate_folder
from nnunet_sfr.json_files import read_json

METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm", "nsd", "hd95_voxels", "asd_voxels")
IN_VOXELS = {"hd95_voxels": "hd95_mm", "asd_voxels": "asd_mm"}
"""Measured a second time with every voxel a cube of edge 1, for the tables of the paper."""

Values = Mapping[str, Mapping[str, float | None]]
"""Class -> metric -> value; None where it is undefined."""


@dataclass(frozen=True)
class TrainerResults:
    """All finished runs of one trainer.

    Args:
        trainer: its name, without epochs.
        cases: seed -> test case -> class -> metric -> value.
        records: seed -> what the training measured.
    """

    trainer: str
    cases: Mapping[int, Mapping[str, Values]]
    records: Mapping[int, Mapping[str, Any]]

    @property
    def classes(self) -> list[str]:
        return list(next(iter(next(iter(self.cases.values())).values())))

    def of_cases(self, metric: str, seed: int) -> dict[str, float]:
        """Mean over the classes, by test case; cases in which all are undefined are left out."""
        means = {
            case: mean_over_classes([values.get(metric) for values in classes.values()])
            for case, classes in self.cases[seed].items()
        }
        return {case: mean for case, mean in sorted(means.items()) if mean is not None}

    def seed_means(self, metric: str) -> dict[int, float]:
        """Mean over the test cases, by seed."""
        return {seed: statistics.fmean(self.of_cases(metric, seed).values()) for seed in self.cases}

    def case_means(self, metric: str, seeds: Iterable[int]) -> dict[str, float]:
        """Mean over seeds, by test case; cases that a seed has no value of are left out.

        Of a case with an empty truth, those seeds have one that find something.
        """
        chosen = [self.of_cases(metric, seed) for seed in seeds]
        common = [case for case in chosen[0] if all(case in cases for cases in chosen)]
        return {case: statistics.fmean(cases[case] for cases in chosen) for case in common}

    def class_means(self, metric: str, name: str) -> dict[int, float]:
        """Mean of one class over the test cases in which it is defined, by seed."""
        means = {}
        for seed, cases in self.cases.items():
            defined = [value for classes in cases.values() if (value := classes[name].get(metric)) is not None]
            means[seed] = statistics.fmean(defined) if defined else math.nan
        return means

    def matrix(self, metric: str, cases: Sequence[str]) -> NDArray[np.float64]:
        """(seeds, cases)."""
        return np.array([[self.of_cases(metric, seed)[case] for case in cases] for seed in self.cases])

    def mean_record(self, key: str) -> float:
        return statistics.fmean(record[key] for record in self.records.values())


def read_results(workspace: StudyFolders) -> list[TrainerResults]:
    """Every trainer with a finished run, in the order of :data:`KNOWN_TRAINERS`; evaluates what is not yet."""
    results = []
    for trainer in KNOWN_TRAINERS:
        seeds = workspace.seeds(trainer)
        if seeds:
            records = {seed: read_json(workspace.record(trainer, seed), "delete it to run again") for seed in seeds}
            results.append(TrainerResults(trainer, {seed: _cases(workspace, trainer, seed) for seed in seeds}, records))
    return results


def mean_over_classes(values: Iterable[float | None]) -> float | None:
    """Mean of those that are defined; None without any."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(defined) if defined else None


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation (n - 1); None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _cases(workspace: StudyFolders, trainer: str, seed: int) -> dict[str, Values]:
    file = workspace.run(trainer, seed).folder / "metrics_by_class.json"
    if not file.is_file():
        raw = workspace.base.raw_dataset
        dataset_json = read_json(raw / "dataset.json", "build the data set again")
        predictions = workspace.predictions(trainer, seed)
        in_mm = evaluate_folder(raw / "labelsTs", predictions, dataset_json)
        in_voxels = evaluate_folder(raw / "labelsTs", predictions, dataset_json, voxels=True)
        content = {
            case: {
                name: {
                    metric: _number(getattr((in_voxels if metric in IN_VOXELS else in_mm).cases[case][name], own))
                    for metric in METRICS
                    for own in (IN_VOXELS.get(metric, metric),)
                }
                for name in classes
            }
            for case, classes in in_mm.cases.items()
        }
        write_json(content, file)
    return read_json(file, "delete it to evaluate again")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
