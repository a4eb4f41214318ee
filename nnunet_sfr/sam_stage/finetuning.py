"""Fine-tuning SAM on stitched labelled patches (paper, section III-B2; docs/method.md, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from nnunet_sfr.data.preprocessed_files import damaged_voxels_named
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_ADAPTER, FINE_TUNING_STATE, Fold
from nnunet_sfr.replacement import finish_replacement, new_folder, replace_folder
from nnunet_sfr.sam_stage.finetuning_run import FineTuningRun, saved_recipe
from nnunet_sfr.sam_stage.model import recipe_of
from nnunet_sfr.sam_stage.processes import start_processes
from nnunet_sfr.sam_stage.recipe import changed_names, fine_tuning_recipe, is_same_recipe
from nnunet_sfr.sam_stage.rounds import open_round


def fine_tune(
    dataset: SFRDataset, fold: Fold, device: torch.device, *, round_index: int = 0, overwrite: bool = False
) -> Path:
    """Fine-tune SAM for one fold and round, from the start or from where an earlier run stopped.

    Where patches are cut into slices across several axes, each axis gets a SAM of its own. That of the first axis comes
    last, so that its adapter stands for all of them.

    Args:
        dataset: planned and preprocessed.
        fold: which labelled cases to learn from.
        device: to compute on.
        round_index: 0 for SFR; later rounds of SFR+ continue from the one before.
        overwrite: start again. What an earlier run left stays until the new run is complete; interrupted, the next
            call with ``overwrite`` continues the new run.

    Returns:
        The folder with ``adapter_final.safetensors``, ``adapter_best.safetensors`` and the log.

    Raises:
        UserError: the data, the settings or an earlier run do not allow it.
    """
    dataset.write_split(fold)
    _finish_replacements(dataset, fold, round_index, start_processes(device))
    read = [dataset.paths.labelled, *([dataset.paths.unlabelled] if round_index > 0 else [])]
    with damaged_voxels_named(*read):
        runs = [
            _fine_tune_plane(plane, fold, device, round_index, overwrite=overwrite)
            for plane in reversed(dataset.planes)
        ]
    # not one by one: the SAMs of several axes belong together
    _replace([folder for folder in runs if folder is not None])
    return dataset.paths.sam_stage(fold, round_index)


def _finish_replacements(dataset: SFRDataset, fold: Fold, round_index: int, processes: PartialState) -> None:
    """Do what a killed call did not come to; one process does, before any of them looks at the folders."""
    if processes.is_main_process:
        for plane in dataset.planes:
            finish_replacement(plane.paths.sam_stage(fold, round_index))
    processes.wait_for_everyone()


def _replace(folders: Sequence[Path]) -> None:
    """Put complete new runs in the places of earlier ones."""
    if not folders:
        return
    processes = PartialState()
    if processes.is_main_process:
        for folder in folders:
            replace_folder(folder)
    processes.wait_for_everyone()


def _fine_tune_plane(
    dataset: SFRDataset, fold: Fold, device: torch.device, round_index: int, *, overwrite: bool
) -> Path | None:
    """:func:`fine_tune` for one axis.

    Returns:
        The folder that the new run is to replace; None where it lies in its place.
    """
    folder = dataset.paths.sam_stage(fold, round_index)
    this_round = open_round(dataset, fold, round_index)
    recipe = fine_tuning_recipe(dataset, fold, this_round)
    finished = folder / FINAL_ADAPTER
    if finished.is_file() and not overwrite:
        if not is_same_recipe(recipe_of(finished), recipe):
            raise UserError(
                f"{finished}: made with another {changed_names(recipe_of(finished), recipe)}; add --overwrite to start "
                "again"
            )
        print(f"{finished} is complete; --overwrite starts again")
        return None
    replaces = overwrite and folder.is_dir()
    if not replaces:
        # before the run starts, which deletes views that were made with other settings
        _refuse_other_recipe(folder / FINE_TUNING_STATE, recipe)
    run = FineTuningRun.start(dataset, fold, device, new_folder(folder) if replaces else folder, recipe, this_round)
    if replaces:
        run.discard_other_recipe()
    if not (run.folder / FINAL_ADAPTER).is_file():  # which a call that was killed can have left of a new run
        run.resume_if_begun()
        run.train()
    return folder if replaces else None


def _refuse_other_recipe(file: Path, recipe: str) -> None:
    """Raise a UserError if there is a saved state, and it is damaged or settings changed since."""
    if not file.is_file():
        return
    before = saved_recipe(file)
    if not is_same_recipe(before, recipe):
        raise UserError(
            f"{file}: was written with another {changed_names(before, recipe)}; restore it, or run sfr_finetune "
            "--overwrite"
        )
