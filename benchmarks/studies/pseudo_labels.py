"""How good the pseudo-labels of a study are: Dice on the unlabelled cases, whose truth no training reads."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.project import environment
from benchmarks.studies.results import mean_over_classes
from benchmarks.studies.study import FOLD, Study, StudyFolders
from benchmarks.workspace import CONFIGURATION, ProjectFolders
from nnunet_sfr.atomic import write_json
from nnunet_sfr.conversion.raw_dataset import UNLABELLED_TRUTH
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.evaluation.folders import evaluate_folder
from nnunet_sfr.json_files import read_json
from nnunet_sfr.trainers import ROUND_TRAINERS


def measure_pseudo_labels(study: Study, workspace: StudyFolders) -> dict[str, list[float]]:
    """Mean Dice of every set of pseudo-labels that finished runs have, by who made it; a value for each seed.

    Returns:
        nothing where the truth of the unlabelled cases is not at hand.
    """
    if not (workspace.base.raw_dataset / UNLABELLED_TRUTH).is_dir():
        return {}
    return {
        name: [_mean_dice(project, store) for project in projects]
        for name, store, projects in _stores(study, workspace)
    }


def _stores(study: Study, workspace: StudyFolders) -> Iterator[tuple[str, str, list[ProjectFolders]]]:
    """Name for people, folder of the store, and the projects that have it."""
    labelled = [base for base in workspace.bases_with_sam(study) if (base.folder / "labels.json").is_file()]
    if labelled:
        yield "SAM, round 0", "round_0", labelled
    for trainer in ROUND_TRAINERS:
        projects = [workspace.run(trainer, seed) for seed in workspace.seeds(trainer)]
        for index in range(1, study.rounds + 1) if projects else ():
            yield f"{trainer}: the network before round {index}", f"round_{index}_model", projects
            yield f"{trainer}: SAM, round {index}", f"round_{index}", projects


def _mean_dice(project: ProjectFolders, store: str) -> float:
    """Measured once; kept beside the project."""
    file = project.folder / f"pseudo_labels_{store}.json"
    if not file.is_file():
        write_json({"dice": _measure(project, store)}, file)
    return float(read_json(file, "delete it to measure again")["dice"])


def _measure(project: ProjectFolders, store: str) -> float:
    """Mean over the cases that have a truth, each a mean over its classes."""
    with environment(project.roots), TemporaryDirectory() as exported:
        dataset = open_dataset(project.dataset, CONFIGURATION, project.plans)
        folder = dataset.paths.pseudo_labels(FOLD).with_name(store)
        export_pseudo_labels(PseudoLabelStore.open(folder, grid=dataset.grid), dataset, Path(exported))
        truth, ending = project.raw_dataset / UNLABELLED_TRUTH, dataset.dataset_json["file_ending"]
        for file in Path(exported).glob(f"*{ending}"):
            if not (truth / file.name).is_file():  # an unlabelled case of a source that had it so
                file.unlink()
        evaluation = evaluate_folder(truth, Path(exported), dataset.dataset_json)
    cases = ([metrics.dice for metrics in classes.values()] for classes in evaluation.cases.values())
    return statistics.fmean(mean for values in cases if (mean := mean_over_classes(values)) is not None)
