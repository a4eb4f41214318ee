"""Which results learnt from the labelled cases of before, and the commands that make them anew."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import Fold
from nnunet_sfr.pipeline.nnunet_steps import Train
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.project import CHECKPOINTS, MANIFEST, Project
from nnunet_sfr.pipeline.sfr_steps import FineTune, PseudoLabel
from nnunet_sfr.pipeline.step import Command

_LATER_ROUND = "SFRPlus_"
"""In the names of trainers that go on from a round before."""


def commands_to_repeat(datasets: Sequence[SFRDataset]) -> list[str]:
    """What to run again, in order, as lines to print; nothing where nothing has been learnt yet.

    Args:
        datasets: planned configurations.
    """
    commands = [
        shlex.join(command) for dataset in datasets for fold in _folds(dataset) for command in _commands(dataset, fold)
    ]
    if not commands:
        return []
    rounds = any((fold / "round_1_selection.json").is_file() for dataset in datasets for fold in _pool_folders(dataset))
    last = ["  then the rounds of SFR+, from round 1 on, as before"] if rounds else []
    return [
        "To be done again (sfr_run, called as before, does it by itself):",
        *(f"  {line}" for line in commands),
        *last,
    ]


def _commands(dataset: SFRDataset, fold: Fold) -> Iterator[Command]:
    """Of round 0 of one fold: what has a result, complete or not."""
    paths = dataset.paths
    number = str(int(paths.dataset_name.removeprefix("Dataset").partition("_")[0]))
    options = RunOptions(
        dataset=number,
        dataset_name=paths.dataset_name,
        configuration=paths.configuration,
        fold=fold,
        plans=paths.plans_name,
    )
    project = Project(options)
    if paths.sam_stage(fold).is_dir():
        yield FineTune(project).command_anew
    manifest = paths.pseudo_labels(fold) / MANIFEST
    if manifest.is_file() and read_json(manifest, "run sfr_pseudolabel").get("made_by", {}).get("source") == "sam":
        yield PseudoLabel(project).command_anew
    step = Train(project)
    for trainer in _trainers(dataset, fold):
        if _LATER_ROUND not in trainer:
            case = ("nnUNetv2_train", number, paths.configuration, str(fold))
            yield (*case, "-tr", trainer, *step.plans_options)


def _folds(dataset: SFRDataset) -> list[Fold]:
    """Folds that anybody has begun."""
    names = {folder.name for folder in _pool_folders(dataset)}
    names |= {folder.name for folder in dataset.paths.sam_stage("all").parents[1].glob("fold_*")}
    names |= {folder.name for folder in dataset.paths.results.glob(f"*{_suffix(dataset)}/fold_*")}
    numbers = sorted(name.removeprefix("fold_") for name in names)
    return [int(number) if number.isdecimal() else number for number in numbers]


def _pool_folders(dataset: SFRDataset) -> list[Path]:
    return sorted(dataset.paths.pseudo_labels("all").parents[1].glob("fold_*"))


def _trainers(dataset: SFRDataset, fold: Fold) -> list[str]:
    suffix = _suffix(dataset)
    folders = sorted(dataset.paths.results.glob(f"*{suffix}/fold_{fold}"))
    return [
        folder.parent.name.removesuffix(suffix)
        for folder in folders
        if any((folder / checkpoint).is_file() for checkpoint in CHECKPOINTS)
    ]


def _suffix(dataset: SFRDataset) -> str:
    return f"__{dataset.paths.plans_name}__{dataset.paths.configuration}"
