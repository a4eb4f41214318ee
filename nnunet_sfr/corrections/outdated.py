"""Which results learnt from the labelled cases of before, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_sfr.command_lines import Command, CommandLines, shell_text
from nnunet_sfr.data.store_manifest import maker_in, read_manifest
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import device_for_nnunet
from nnunet_sfr.paths import Fold, RunPaths, SFRPaths, portable_name
from nnunet_sfr.pipeline.state import recorded_commands

_LATER_ROUND = "SFRPlus_"
"""In the names of trainers that continue from a round before."""

_OVERWRITE, _RESUME = "--overwrite", "--c"


def commands_to_repeat(datasets: Sequence[SFRDataset]) -> list[str]:
    """What to run again, in order, as lines to print; nothing where nothing has been learnt yet.

    Args:
        datasets: planned configurations.
    """
    commands = [shell_text(command) for dataset in datasets for command in _commands(dataset.paths)]
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


def _commands(paths: SFRPaths) -> Iterator[Command]:
    """Of round 0: what has a result, complete or not."""
    folds = paths.begun_folds()
    recorded = recorded_commands(RunPaths(paths.dataset_name, paths.plans_name, paths.configuration, "all", name=""))
    for fold in folds:
        yield from _labelling(paths, fold, recorded)
    # after SAM's labels, whose Dice it estimates, and before the trainings, about which it gives advice
    if paths.crosschecks.is_dir():
        again = CommandLines.of(paths, "all").crosscheck(with_nnunet=paths.left_out_network(0).is_dir())
        yield (*_as_before(paths.crosschecks, again, recorded), _OVERWRITE)
    for fold in folds:
        yield from _trainings(paths, fold, recorded)


def _labelling(paths: SFRPaths, fold: Fold, recorded: Mapping[str, str]) -> Iterator[Command]:
    lines = CommandLines.of(paths, fold)
    sam, store = paths.sam_stage(fold), paths.pseudo_labels(fold)
    if sam.is_dir():
        yield (*_as_before(sam, lines.fine_tune(), recorded), _OVERWRITE)
    manifest = read_manifest(store)
    if manifest is not None and maker_in(manifest).is_sam:
        yield (*_as_before(store, lines.pseudo_label(), recorded), _OVERWRITE)


def _trainings(paths: SFRPaths, fold: Fold, recorded: Mapping[str, str]) -> Iterator[Command]:
    lines = replace(CommandLines.of(paths, fold), device=device_for_nnunet())
    for trainer in paths.trainers(fold):
        if _LATER_ROUND not in trainer:
            yield _as_before(paths.training(trainer, fold), lines.train(trainer), recorded)


def _as_before(result: Path, command: Command, recorded: Mapping[str, str]) -> Command:
    """What sfr_run ran for a result, with all its options; the command with our defaults where it has not."""
    typed = shlex.split(recorded.get(portable_name(result), "")) or command
    return tuple(word for word in typed if word not in (_OVERWRITE, _RESUME))
