"""A short training of plain nnU-Net on the cases that a fold keeps, to compare SAM with."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.loaders import fitting_patch
from nnunet_sfr.data.preprocessed_files import image_hashes
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import as_json, read_json
from nnunet_sfr.labelling.from_network import NetworkLabeller
from nnunet_sfr.labelling.from_retraining import labeller_of_preprocessed
from nnunet_sfr.labelling.trained_model import open_model
from nnunet_sfr.paths import BEST_CHECKPOINT, FINAL_CHECKPOINT, LATEST_CHECKPOINT, RESULTS, fold_name, model_name
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.replacement import finish_replacement, new_folder, replace_folder
from nnunet_sfr.wording import reason

EPOCHS = 20
"""A training has about so many epochs, after each of which nnU-Net lowers the learning rate and saves a checkpoint."""
TRAINER = nnUNetTrainer.__name__
_RECIPE = "recipe.json"


class LeftOutTrainer(nnUNetTrainer):
    """nnU-Net's own trainer with a given split; what it says goes to its log alone.

    The constructor keeps nnU-Net's signature, which its base class requires; :func:`_build` sets the rest.
    """

    split: tuple[list[str], list[str]]
    on_step: Callable[[], object]
    """Called after every optimiser step."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """The cases to train on and those that are left out, which nothing is chosen by."""
        return self.split

    @staticmethod
    def get_training_transforms(patch_size: Any, *args: Any, **kwargs: Any) -> Any:
        """nnU-Net's, without the blur for volumes of two or three slices, on which it fails."""
        return fitting_patch(nnUNetTrainer.get_training_transforms(patch_size, *args, **kwargs), patch_size)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's."""
        result: dict[str, Any] = super().train_step(batch)
        self.on_step()
        return result

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, which appears whole; none for the best Dice on the cases that are left out."""
        file = Path(filename)
        if file.name == BEST_CHECKPOINT:
            return
        with replacing(file) as temporary:
            super().save_checkpoint(str(temporary))

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """nnU-Net's log, without its copy on the console.

        Args:
            args: what to write.
            also_print_to_console: not heeded.
            add_timestamp: whether the line begins with the time.
        """
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)


# nnU-Net names folders and checkpoints after the class: this is a model that every nnU-Net can load
LeftOutTrainer.__name__ = TRAINER


def schedule(iterations: int) -> tuple[int, int]:
    """Epochs and optimiser steps in each, together at least ``iterations`` and less than an epoch more.

    Args:
        iterations: at least 1.
    """
    steps = -(-iterations // EPOCHS)
    return -(-iterations // steps), steps


def trained_checkpoint(dataset: SFRDataset, fold: int) -> Path | None:
    """The checkpoint of a training that is complete and of the cases and settings of today; None without one.

    Args:
        dataset: from :func:`nnunet_sfr.crosscheck.folds.with_crosscheck_folds`.
        fold: a number.
    """
    folder = dataset.paths.left_out_network(fold)
    finish_replacement(folder)
    file = _training(dataset, fold, folder) / FINAL_CHECKPOINT
    return file if file.is_file() and _recipe_in(folder) == _recipe(dataset, fold) else None


def train_network(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
    """Train nnU-Net without the cases of a fold, as far as that is not done.

    A training of other cases or settings is replaced when the new one is complete.

    Args:
        dataset: from :func:`nnunet_sfr.crosscheck.folds.with_crosscheck_folds`.
        fold: a number.
        device: to compute on.
        overwrite: train again.

    Returns:
        The final checkpoint.

    Raises:
        UserError: a checkpoint to continue from is damaged.
    """
    done = trained_checkpoint(dataset, fold)
    if done is not None and not overwrite:
        print(f"{done} is complete; --overwrite starts again")
        return done
    folder = dataset.paths.left_out_network(fold)
    final = _training(dataset, fold, folder) / FINAL_CHECKPOINT
    place = new_folder(folder) if final.is_file() else folder
    recipe = _recipe(dataset, fold)
    if _recipe_in(place) != recipe:
        shutil.rmtree(place, ignore_errors=True)
        write_json(recipe, place / _RECIPE)
    if not (_training(dataset, fold, place) / FINAL_CHECKPOINT).is_file():
        _train(dataset, fold, device, place)
    if place != folder:
        replace_folder(folder)
    return final


def network_labeller(dataset: SFRDataset, fold: int, device: torch.device) -> NetworkLabeller:
    """The trained network as what labels cases.

    Args:
        dataset: from :func:`nnunet_sfr.crosscheck.folds.with_crosscheck_folds`.
        fold: a number, whose training is complete.
        device: to compute on.

    Raises:
        UserError: its checkpoint is damaged.
    """
    folder = _training(dataset, fold, dataset.paths.left_out_network(fold)).parent
    return labeller_of_preprocessed(open_model(folder, [fold], FINAL_CHECKPOINT, dataset, device), dataset, device)


def _training(dataset: SFRDataset, fold: int, results: Path) -> Path:
    """Where nnU-Net puts the training of a fold if its results are to go to a folder."""
    paths = dataset.paths
    return results / paths.dataset_name / model_name(TRAINER, paths.plans_name, paths.configuration) / fold_name(fold)


def _recipe(dataset: SFRDataset, fold: int) -> dict[str, Any]:
    """Everything that a resumed or finished training must share with the present call, in JSON's types."""
    training, _ = dataset.split(fold)
    settings = dataset.settings
    recipe = {
        "iterations": settings.crosscheck.nnunet_iterations,
        "seed": settings.fine_tuning.seed,
        "cases": image_hashes(dataset.paths.labelled, training),
        "configuration": dataset.configuration_manager.configuration,
        "grid": dataset.grid,
    }
    return as_json(recipe)


def _recipe_in(folder: Path) -> dict[str, Any] | None:
    """What the training in a folder was begun with; None where nothing that can be used was written."""
    try:
        return read_json(folder / _RECIPE, "train again")
    except UserError:
        return None


def _train(dataset: SFRDataset, fold: int, device: torch.device, results: Path) -> None:
    """All remaining epochs."""
    seed = dataset.settings.fine_tuning.seed
    seed_everything(seed)
    trainer = _build(dataset, fold, device, results)
    latest = Path(trainer.output_folder, LATEST_CHECKPOINT)
    if latest.is_file():
        _load(trainer, latest)
        seed_everything(seed + trainer.current_epoch)  # the steps to come draw other patches than those before
    steps = trainer.num_iterations_per_epoch
    with tqdm(
        total=trainer.num_epochs * steps, initial=trainer.current_epoch * steps, desc="Training nnU-Net", mininterval=1
    ) as bar:
        trainer.on_step = bar.update
        trainer.run_training()


def _build(dataset: SFRDataset, fold: int, device: torch.device, results: Path) -> LeftOutTrainer:
    plans = {**deepcopy(dataset.plans), "continue_training": False}
    with _results_in(results), contextlib.redirect_stdout(None):
        trainer = LeftOutTrainer(plans, dataset.paths.configuration, fold, deepcopy(dataset.dataset_json), device)
    trainer.split = dataset.split(fold)
    trainer.num_epochs, trainer.num_iterations_per_epoch = schedule(dataset.settings.crosscheck.nnunet_iterations)
    # nnU-Net needs a batch for its log
    trainer.num_val_iterations_per_epoch = 1
    trainer.save_every = 1
    return trainer


def _load(trainer: LeftOutTrainer, file: Path) -> None:
    try:
        trainer.load_checkpoint(str(file))
    except Exception as error:
        raise UserError(f"{file}: cannot be read ({reason(error)}); delete it and run the same command again") from None


@contextlib.contextmanager
def _results_in(folder: Path) -> Iterator[None]:
    """nnU-Net's variable for results set to a folder, which its trainers read when they are built."""
    before = os.environ[RESULTS]
    os.environ[RESULTS] = str(folder)
    try:
        yield
    finally:
        os.environ[RESULTS] = before
