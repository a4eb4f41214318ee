"""A folder of predictions against a folder of truths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.readers import find_reader
from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.case_metrics import EvaluationTask, evaluate_case
from nnunet_sfr.evaluation.classes import Classes, file_ending, read_classes
from nnunet_sfr.evaluation.metrics import Metrics
from nnunet_sfr.evaluation.rules import NSD_TOLERANCE_MM
from nnunet_sfr.wording import first_names

_MOST_NAMED = 5


@dataclass(frozen=True)
class Evaluation:
    """Every metric of a folder of predictions.

    Args:
        truth: folder.
        prediction: folder.
        classes: what was measured.
        cases: by identifier, sorted, and name of the class or region.
        missing: identifiers of truths without a prediction, which were left out.
        nsd_tolerance_mm: in :attr:`unit`.
        unit: of distances: "mm", "voxels" if they were asked for, or "px" where the format has no spacing.
        warnings: what is odd about the files, one line each.
    """

    truth: Path
    prediction: Path
    classes: Classes
    cases: dict[str, dict[str, Metrics]]
    missing: tuple[str, ...]
    nsd_tolerance_mm: float
    unit: str
    warnings: tuple[str, ...]


def evaluate_folder(
    truth: Path,
    prediction: Path,
    dataset_json: Mapping[str, Any],
    *,
    reader_writer: type[BaseReaderWriter] | None = None,
    processes: int = 1,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    allow_missing: bool = False,
    voxels: bool = False,
) -> Evaluation:
    """Measure every prediction against its truth: files of one name, ``<case><file ending>``.

    Args:
        truth: folder with label maps.
        prediction: folder with label maps; other files may lie there too.
        dataset_json: names classes or regions, ignore label and file ending.
        reader_writer: nnU-Net's reader; None for the one that nnU-Net would choose.
        processes: cases to measure at a time; 1 starts no process.
        nsd_tolerance_mm: how far apart surfaces may be to agree, for the NSD.
        allow_missing: leave out truths without a prediction, which are an error otherwise.
        voxels: measure distances, and the tolerance, in voxels: as published tables do that ignore the spacing.

    Raises:
        UserError: no such folder, no files in it, a prediction without truth, a truth without prediction, a file that
            cannot be read, or a prediction on another grid than its truth.
    """
    classes, ending = read_classes(dataset_json), file_ending(dataset_json)
    truths, predictions = _label_files(truth, ending), _label_files(prediction, ending)
    missing = _unmatched(truths, predictions, allow_missing=allow_missing)
    reader = reader_writer or find_reader(dataset_json, next(iter(truths.values())))
    tasks = [
        EvaluationTask(identifier, truths[identifier], file, classes, reader, nsd_tolerance_mm, voxels)
        for identifier, file in predictions.items()
    ]
    results = run_parallel(evaluate_case, tasks, processes=processes, description=f"Measuring {prediction.name}")
    return Evaluation(
        truth=truth,
        prediction=prediction,
        classes=classes,
        cases={task.identifier: result.metrics for task, result in zip(tasks, results, strict=True)},
        missing=missing,
        nsd_tolerance_mm=nsd_tolerance_mm,
        unit="px" if issubclass(reader, NaturalImage2DIO) else "voxels" if voxels else "mm",
        warnings=tuple(warning for result in results for warning in result.warnings),
    )


def _label_files(folder: Path, ending: str) -> dict[str, Path]:
    """Label maps by identifier, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; name a folder with label maps, <case>{ending}")
    files = {
        entry.name.removesuffix(ending): entry
        for entry in folder.iterdir()
        if entry.name.endswith(ending) and not entry.name.startswith(".") and entry.is_file()
    }
    if not files:
        raise UserError(f"{folder}: no file ends in {ending}; name a folder with label maps, <case>{ending}")
    return {identifier: files[identifier] for identifier in sorted(files)}


def _unmatched(truths: Mapping[str, Path], predictions: Mapping[str, Path], *, allow_missing: bool) -> tuple[str, ...]:
    """Truths without prediction, if they are allowed.

    Raises:
        UserError: they are not, or a prediction has no truth.
    """
    alone = sorted(set(predictions) - set(truths))
    if alone:
        folder = next(iter(truths.values())).parent
        named = first_names(alone, _MOST_NAMED)
        raise UserError(f"{predictions[alone[0]]}: has no truth in {folder} ({named}); add or remove them")
    missing = sorted(set(truths) - set(predictions))
    if missing and not allow_missing:
        folder = next(iter(predictions.values())).parent
        named = first_names(missing, _MOST_NAMED)
        raise UserError(f"{folder}: no prediction of {named}; predict them, or leave them out with --chill")
    return tuple(missing)
