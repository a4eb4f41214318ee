"""Which results learnt from the labelled cases of before, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_sfr.command_lines import Command, CommandLines, shell_text
from nnunet_sfr.data.provenance import PROVENANCE_SHAPE, Provenance
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import device_for_nnunet
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import MANIFEST, Fold, RunPaths, portable_name
from nnunet_sfr.pipeline.state import recorded_commands

_LATER_ROUND = "SFRPlus_"
"""In the names of trainers that continue from a round before."""

_OVERWRITE, _RESUME = "--overwrite", "--c"


def commands_to_repeat(datasets: Sequence[SFRDataset]) -> list[str]:
    """What to run again, in order, as lines to print; nothing where nothing has been learnt yet.

    Args:
        datasets: planned configurations.
    """
    commands = [
        shell_text(command)
        for dataset in datasets
        for fold in dataset.paths.begun_folds()
        for command in _commands(dataset, fold)
    ]
    if not commands:
        return []
    folds = [dataset.paths.selection(fold, 1) for dataset in datasets for fold in dataset.paths.begun_folds()]
    rounds = any(selection.is_file() for selection in folds)
    last = ["  then the rounds of SFR+, from round 1 on, as before"] if rounds else []
    return [
        "To be done again (sfr_run, called as before, does it by itself):",
        *(f"  {line}" for line in commands),
        *last,
    ]


def _commands(dataset: SFRDataset, fold: Fold) -> Iterator[Command]:
    """Of round 0 of one fold: what has a result, complete or not."""
    paths = dataset.paths
    recorded = recorded_commands(RunPaths(paths.dataset_name, paths.plans_name, paths.configuration, fold, name=""))

    def as_before(result: Path, command: Command) -> Command:
        """What sfr_run ran for a result, with all its options; the command with our defaults where it has not."""
        typed = shlex.split(recorded.get(portable_name(result), "")) or command
        return tuple(word for word in typed if word not in (_OVERWRITE, _RESUME))

    lines = CommandLines.of(paths, fold)
    sam, store = paths.sam_stage(fold), paths.pseudo_labels(fold)
    if sam.is_dir():
        yield (*as_before(sam, lines.fine_tune()), _OVERWRITE)
    if _is_sams(store):
        yield (*as_before(store, lines.pseudo_label()), _OVERWRITE)
    nnunet = replace(lines, device=device_for_nnunet())
    for trainer in paths.trainers(fold):
        if _LATER_ROUND not in trainer:
            yield as_before(paths.training(trainer, fold), nnunet.train(trainer))


def _is_sams(store: Path) -> bool:
    if not (store / MANIFEST).is_file():
        return False
    manifest = read_json(store / MANIFEST, "run sfr_pseudolabel --overwrite", {"made_by": PROVENANCE_SHAPE})
    return Provenance.from_json(manifest["made_by"]).is_sam
