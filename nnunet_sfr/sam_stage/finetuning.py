"""Fine-tuning SAM on stitched labelled patches (paper, section III-B2; docs/method.md, sections 2 and 5)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor
from tqdm import tqdm

from nnunet_sfr import torch_files
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.datasets import LabelledDataset, LoadableCases
from nnunet_sfr.data.preprocessed_files import damaged_voxels_named
from nnunet_sfr.data.preprocessed_grid import check_grids
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import BEST_ADAPTER, FINAL_ADAPTER, FINAL_OPTIMIZER, FINE_TUNING_LOG, FINE_TUNING_STATE, Fold
from nnunet_sfr.random_state import random_state, restore_random_state, seed_everything
from nnunet_sfr.replacement import finish_replacement, new_folder, replace_folder
from nnunet_sfr.sam_stage.adaptation import adapter_state, encoder_is_frozen, load_adapter_state
from nnunet_sfr.sam_stage.brightening import Brightness
from nnunet_sfr.sam_stage.examples import CanvasLogits, Examples
from nnunet_sfr.sam_stage.examples_of_round import draw_differently, examples_of_round
from nnunet_sfr.sam_stage.intensities import intensities_of
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.layers.checkpointing import checkpoint_blocks
from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
from nnunet_sfr.sam_stage.model import (
    build_stitched_sam,
    for_inference,
    recipe_of,
    save_adapter,
)
from nnunet_sfr.sam_stage.processes import make_accelerator, start_processes, sum_over_processes
from nnunet_sfr.sam_stage.recipe import changed_names, fine_tuning_recipe, is_same_recipe
from nnunet_sfr.sam_stage.rounds import Round, continue_from, open_round
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.sam_stage.validation import mean_foreground_dice
from nnunet_sfr.settings import FineTuningSettings


def learning_rate(iteration: int, settings: FineTuningSettings) -> float:
    """Linear warm-up times polynomial decay: lr * min((t + 1) / W, 1) * (1 - t / T)^p.

    Args:
        iteration: t, counted from 0.
    """
    warm_up = min((iteration + 1) / settings.warmup_iterations, 1.0) if settings.warmup_iterations else 1.0
    decay: float = (1.0 - iteration / settings.iterations) ** settings.poly_exponent
    return settings.learning_rate * warm_up * decay


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
    with damaged_voxels_named(dataset.paths.labelled, dataset.paths.unlabelled):
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
    run = _Run.start(dataset, fold, device, new_folder(folder) if replaces else folder, recipe, this_round)
    if replaces:
        run.discard_other_recipe()
    if not (run.folder / FINAL_ADAPTER).is_file():  # which a call that was killed can have left of a new run
        run.resume_if_begun()
        run.train()
    return folder if replaces else None


@dataclass
class _Run:
    """One fine-tuning run: everything that a step needs, and where it stands."""

    dataset: SFRDataset
    settings: FineTuningSettings
    folder: Path
    recipe: str
    accelerator: Accelerator
    model: StitchedSAM
    logits: torch.nn.Module
    """From the inputs of a step to logits; wraps ``model``."""
    optimizer: torch.optim.Optimizer
    examples: Examples
    training_ids: list[str]
    validation_cases: Any
    cases: LoadableCases
    """That SAM learns from."""
    iteration: int = 0
    best_dice: float = -math.inf
    log: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(
        cls, dataset: SFRDataset, fold: Fold, device: torch.device, folder: Path, recipe: str, this_round: Round
    ) -> _Run:
        settings = this_round.settings
        training_ids, validation_ids = dataset.split(fold)
        validation_cases = LabelledDataset(str(dataset.paths.labelled), validation_ids[: settings.max_validation_cases])
        check_grids(validation_cases, dataset.plans_manager, dataset.configuration_manager)
        seed_everything(settings.seed)
        accelerator = make_accelerator(device, settings.batch_size)
        model = build_stitched_sam(dataset)
        if settings.activation_checkpointing and not encoder_is_frozen(model.sam):
            checkpoint_blocks(model.sam.backbone.blocks(model.sam.image_encoder))
        optimizer = _optimizer(model, settings)
        if this_round.previous is not None:
            continue_from(this_round.previous, model, optimizer, dataset)
        model.to(accelerator.device)
        examples = examples_of_round(dataset, this_round, model, accelerator)
        return cls(
            dataset=dataset,
            settings=settings,
            folder=folder,
            recipe=recipe,
            accelerator=accelerator,
            model=model,
            logits=accelerator.prepare(CanvasLogits(model, embedded=examples.embedded)),
            optimizer=accelerator.prepare(optimizer),
            examples=examples,
            training_ids=training_ids,
            validation_cases=validation_cases,
            cases=this_round.cases,
        )

    def discard_other_recipe(self) -> None:
        """Remove what an interrupted run left in the folder, if its data or settings were others."""
        with self.accelerator.main_process_first():
            if self.folder.is_dir() and not is_same_recipe(_recipe_in(self.folder), self.recipe):
                shutil.rmtree(self.folder)

    def resume_if_begun(self) -> None:
        """Continue from the saved state of an interrupted run, if there is one."""
        state = self.folder / FINE_TUNING_STATE
        if state.is_file():
            self.resume(state)
            self.accelerator.print(f"continuing from iteration {self.iteration}")

    def train(self) -> None:
        """All remaining steps, with a validation and a saved state every so often and at the end."""
        settings = self.settings
        losses: list[float] = []
        is_main = self.accelerator.is_main_process
        with tqdm(
            total=settings.iterations,
            initial=self.iteration,
            desc="Fine-tuning SAM",
            mininterval=1,
            disable=not is_main,
        ) as bar:
            while self.iteration < settings.iterations:
                losses.append(self.step(*self.examples.draw()))
                self.iteration += 1
                bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                bar.update()
                if self.iteration % settings.validation_every == 0 or self.iteration == settings.iterations:
                    self.validate_and_save(losses)
                    losses = []
        if is_main:
            self.finish()
        self.accelerator.wait_for_everyone()
        self.examples.close()

    def finish(self) -> None:
        """Write what a complete run leaves."""
        with replacing(self.folder / FINAL_OPTIMIZER) as temporary:
            torch_files.save({"recipe": self.recipe, "optimizer": self.optimizer.state_dict()}, temporary)
        # last, because it stands for a complete run
        self.save_adapter(FINAL_ADAPTER)
        (self.folder / FINE_TUNING_STATE).unlink(missing_ok=True)

    @cached_property
    def brightness(self) -> Brightness | None:
        """Of the cases; labelling compares others with it. Measured when first saved, by the process that saves."""
        return Brightness.of(self.cases, intensities_of(self.dataset))

    def save_adapter(self, name: str) -> None:
        """Write the adapter as it is now."""
        file = self.folder / name
        save_adapter(self.model, self.dataset, file, recipe=self.recipe, brightness=self.brightness)

    def step(self, inputs: Tensor, target: Tensor) -> float:
        """One optimiser step; returns the loss.

        Args:
            inputs: this process's share of the batch, as :class:`CanvasLogits` takes it.
            target: [B, S, S], int64 with ``IGNORE_INDEX``.

        Raises:
            UserError: the loss is not finite.
        """
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.iteration, settings)
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            logits = self.logits(inputs.to(self.accelerator.device))
        loss, _ = stitched_segmentation_loss(
            logits.float(),
            target.to(self.accelerator.device),
            ignore_index=IGNORE_INDEX,
            cross_entropy_weight=settings.cross_entropy_weight,
            dice_weight=settings.dice_weight,
            over_processes=sum_over_processes(self.accelerator),
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self.not_finite(f"the loss of iteration {self.iteration + 1} is")
        self.accelerator.backward(loss)
        if settings.max_gradient_norm is not None:
            self.accelerator.clip_grad_norm_(_trainable(self.model), settings.max_gradient_norm)
        self.optimizer.step()
        return value

    def not_finite(self, what: str) -> UserError:
        """The end of a run whose numbers are NaN or infinite; what it saved before stays.

        Args:
            what: is not finite, with its verb.
        """
        kept = ""
        if self.log:
            best = max(self.log, key=lambda entry: entry["validation_dice"])
            kept = (
                f"; the best adapter until then (iteration {best['iteration']:.0f}, Dice "
                f"{best['validation_dice']:.3f}) is kept in {self.folder / BEST_ADAPTER}"
            )
        return UserError(
            f"{self.folder}: {what} not finite{kept}; lower fine_tuning.learning_rate in the SFR plan and run "
            "sfr_finetune --overwrite"
        )

    def validate_and_save(self, losses: list[float]) -> None:
        """Dice on the validation cases, the best adapter so far, and everything that a resumed run needs."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in _trainable(self.model)):
            raise self.not_finite(f"weights after iteration {self.iteration} are")  # in every process
        if not self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()
            return
        mean_dice = mean_foreground_dice(
            for_inference(self.model), self.validation_cases, self.dataset, self.accelerator.device
        )
        self.log.append({"iteration": self.iteration, "loss": float(np.mean(losses)), "validation_dice": mean_dice})
        held_out = not set(self.training_ids) & set(self.validation_cases.identifiers)
        cases = "held-out cases" if held_out else "the training cases"
        tqdm.write(f"iteration {self.iteration}: loss {np.mean(losses):.4f}, Dice on {cases} {mean_dice:.4f}")
        if mean_dice > self.best_dice:
            self.best_dice = mean_dice
            self.save_adapter(BEST_ADAPTER)
        write_json(self.log, self.folder / FINE_TUNING_LOG)
        with replacing(self.folder / FINE_TUNING_STATE) as temporary:
            torch_files.save(self.state(), temporary)
        self.accelerator.wait_for_everyone()

    def state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "recipe": self.recipe,
            "adapter": adapter_state(self.model.sam),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "iteration": self.iteration,
            "best_dice": self.best_dice,
            "log": self.log,
            "random_state": random_state(),
        }

    def resume(self, file: Path) -> None:
        """Continue from a saved state.

        On the CPU without worker processes the steps that follow are those that an uninterrupted run would take.

        Raises:
            UserError: the file is damaged.
        """
        state = _read_state(file)
        load_adapter_state(self.model.sam, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.iteration, self.best_dice, self.log = state["iteration"], state["best_dice"], state["log"]
        restore_random_state(state["random_state"])
        if not self.examples.embedded:
            draw_differently(self.settings.seed + self.iteration, self.accelerator)


def _refuse_other_recipe(file: Path, recipe: str) -> None:
    """Raise a UserError if there is a saved state, and it is damaged or settings changed since."""
    if not file.is_file():
        return
    before = _read_state(file, on_disk=True).get("recipe")
    if not is_same_recipe(before, recipe):
        raise UserError(
            f"{file}: was written with another {changed_names(before, recipe)}; restore it, or run sfr_finetune "
            "--overwrite"
        )


def _read_state(file: Path, *, on_disk: bool = False) -> dict[str, Any]:
    """What :meth:`_Run.state` saved; ``on_disk`` leaves tensors there, where only the rest is looked at."""
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=on_disk)
    except Exception as error:
        raise UserError(f"{file}: cannot be read ({error}); run sfr_finetune --overwrite") from None
    return state


def _recipe_in(folder: Path) -> str | None:
    """The recipe of the run in a folder; None where nothing that can be used has been saved."""
    adapter, state = folder / FINAL_ADAPTER, folder / FINE_TUNING_STATE
    try:
        recipe: str | None = recipe_of(adapter) if adapter.is_file() else _read_state(state, on_disk=True).get("recipe")
    except UserError:
        return None
    return recipe


def _optimizer(model: StitchedSAM, settings: FineTuningSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        _trainable(model), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )


def _trainable(model: StitchedSAM) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
