"""One case: its two label maps are read, checked against each other and measured, class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.data.reading import read_label
from nnunet_sfr.evaluation.classes import Classes
from nnunet_sfr.evaluation.metrics import Metrics, measure
from nnunet_sfr.wording import shortest

_MM3_PER_ML = 1000.0
_INVENTED_SLICE_SPACING = 100
"""nnU-Net's readers give a picture a slice spacing of 999, or 999 times the largest other; no slice is this thick."""


@dataclass(frozen=True)
class EvaluationTask:
    """What a worker process needs to measure one case."""

    identifier: str
    truth: Path
    prediction: Path
    classes: Classes
    reader: type[BaseReaderWriter]
    nsd_tolerance_mm: float
    voxels: bool = False


@dataclass(frozen=True)
class CaseMetrics:
    """What is known of one case.

    Args:
        metrics: of every class, by name.
        warnings: what is odd about the files, one line each.
    """

    metrics: dict[str, Metrics]
    warnings: tuple[str, ...]


def evaluate_case(task: EvaluationTask) -> CaseMetrics:
    """Measure every class of one case.

    Raises:
        UserError: a file cannot be read, or the two do not lie on the same grid.
    """
    truth, grid = _read(task, task.truth)
    prediction, found = _read(task, task.prediction)
    require_same_grid(task.prediction, (prediction.shape, found), (truth.shape, grid), task.identifier, like="truth")
    warnings = [
        *_unknown_values(truth, task.truth, task.classes.known_values),
        *_unknown_values(prediction, task.prediction, task.classes.known_values),
    ]
    spacing = [float(step) for step in grid["spacing"]]
    voxel_ml = math.nan if _is_picture(truth, spacing) else math.prod(spacing) / _MM3_PER_ML
    if 1 in truth.shape:
        # in space every voxel of a single slice would be surface, and the inside of two masks would agree
        across = truth.shape.index(1)
        truth, prediction = np.squeeze(truth, across), np.squeeze(prediction, across)
        spacing.pop(across)
    if task.voxels:
        spacing = [1.0] * len(spacing)
    ignored = task.classes.ignored(truth)
    metrics = {
        name: measure(
            task.classes.mask(name, prediction),
            task.classes.mask(name, truth),
            spacing,
            voxel_ml=voxel_ml,
            nsd_tolerance_mm=task.nsd_tolerance_mm,
            ignored=ignored,
        )
        for name in task.classes.labels
    }
    return CaseMetrics(metrics, tuple(warnings))


def _read(task: EvaluationTask, file: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """A label map (D, H, W) and the reader's properties, spacing in the same order among them."""
    label, properties = read_label(task.reader, file, RawCase(task.identifier, (file,), file))
    return label[0], properties


def _unknown_values(label: NDArray[np.float32], file: Path, known: Sequence[int]) -> list[str]:
    unknown = label[~np.isin(label, known)]
    if not unknown.size:
        return []
    return [f"{file}: has the value {shortest(unknown.min())}, which is no label in dataset.json, so it is in no class"]


def _is_picture(label: NDArray[np.float32], spacing: Sequence[float]) -> bool:
    """Whether nnU-Net made up the slice spacing."""
    first, *others = spacing
    return len(label) == 1 and first > _INVENTED_SLICE_SPACING * max(others)
