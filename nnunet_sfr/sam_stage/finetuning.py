"""Fine-tuning SAM on stitched labelled patches (paper, section III-B2; docs/method.md, sections 2 and 5)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from tqdm import tqdm

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.preprocessing import check_grids
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import low_precision
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold
from nnunet_sfr.random_state import random_state, restore_random_state, seed_everything
from nnunet_sfr.sam_stage.adaptation import adapter_state, load_adapter_state
from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
from nnunet_sfr.sam_stage.model import (
    BEST_ADAPTER,
    FINAL_ADAPTER,
    FINAL_OPTIMIZER,
    build_stitched_sam,
    describe,
    recipe_of,
    save_adapter,
)
from nnunet_sfr.sam_stage.patches import IGNORE, labelled_patches, target_labels
from nnunet_sfr.sam_stage.prediction import VolumePredictor
from nnunet_sfr.sam_stage.rounds import Round, go_on_from, open_round
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.settings import FineTuningSettings

STATE = "training_state.pt"
LOG = "fine_tuning_log.json"


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

    Args:
        dataset: planned and preprocessed.
        fold: which labelled cases to learn from.
        device: to compute on.
        round_index: 0 for SFR; later rounds of SFR+ go on from the one before.
        overwrite: discard what an earlier run left.

    Returns:
        The folder with ``adapter_final.safetensors``, ``adapter_best.safetensors`` and the log.

    Raises:
        UserError: the data, the settings or an earlier run do not allow it.
    """
    folder = dataset.paths.sam_stage(fold, round_index)
    this_round = open_round(dataset, fold, round_index)
    recipe = _recipe(dataset, fold, this_round)
    finished = folder / FINAL_ADAPTER
    if finished.is_file() and not overwrite:
        if recipe_of(finished) != recipe:
            raise UserError(
                f"{finished}: made with another {_changed(recipe_of(finished), recipe)}; add --overwrite to start anew"
            )
        print(f"{finished} is complete; --overwrite starts anew")
        return folder
    run = _Run.start(dataset, fold, device, folder, recipe, this_round)
    if overwrite:  # only now, when nothing in data, settings or checkpoint can stop the new run any more
        for name in (STATE, FINAL_ADAPTER, FINAL_OPTIMIZER, BEST_ADAPTER, LOG):
            (folder / name).unlink(missing_ok=True)
    elif (folder / STATE).is_file():
        run.resume(folder / STATE)
        print(f"going on from iteration {run.iteration}")
    run.train()
    return folder


@dataclass
class _Run:
    """One fine-tuning run: everything that a step needs, and where it stands."""

    dataset: SFRDataset
    settings: FineTuningSettings
    folder: Path
    recipe: str
    accelerator: Accelerator
    model: StitchedSAM
    optimizer: torch.optim.Optimizer
    batches: Iterator[dict[str, Any]]
    training_ids: list[str]
    validation_cases: Any
    iteration: int = 0
    best_dice: float = -math.inf
    log: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(
        cls, dataset: SFRDataset, fold: Fold, device: torch.device, folder: Path, recipe: str, this_round: Round
    ) -> _Run:
        settings = this_round.settings
        training_ids, validation_ids = dataset.split(fold)
        validation_cases = infer_dataset_class(str(dataset.paths.labelled))(
            str(dataset.paths.labelled), validation_ids[: settings.max_validation_cases]
        )
        check_grids(validation_cases, dataset.plans_manager, dataset.configuration_manager)
        seed_everything(settings.seed)
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=_PRECISIONS[low_precision(device)])
        if accelerator.num_processes > 1:
            raise UserError("sfr_finetune runs in one process; start it without accelerate launch or torchrun")
        model = build_stitched_sam(dataset)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        if this_round.previous is not None:
            go_on_from(this_round.previous, model, optimizer, dataset)
        return cls(
            dataset=dataset,
            settings=settings,
            folder=folder,
            recipe=recipe,
            accelerator=accelerator,
            model=model.to(accelerator.device),
            optimizer=accelerator.prepare(optimizer),
            batches=labelled_patches(
                dataset,
                this_round.cases,
                sampling_probabilities=this_round.sampling_probabilities,
                pin_memory=device.type == "cuda",
            ),
            training_ids=training_ids,
            validation_cases=validation_cases,
        )

    def train(self) -> None:
        """All remaining steps, with a validation and a saved state every so often and at the end."""
        settings = self.settings
        losses: list[float] = []
        with tqdm(total=settings.iterations, initial=self.iteration, desc="Fine-tuning SAM", mininterval=1) as bar:
            while self.iteration < settings.iterations:
                losses.append(self.step(next(self.batches)))
                self.iteration += 1
                bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                bar.update()
                if self.iteration % settings.validation_every == 0 or self.iteration == settings.iterations:
                    self.validate_and_save(losses)
                    losses = []
        with replacing(self.folder / FINAL_OPTIMIZER) as temporary:
            torch.save({"recipe": self.recipe, "optimizer": self.optimizer.state_dict()}, temporary)
        # last, because it stands for a complete run
        save_adapter(self.model, self.dataset, self.folder / FINAL_ADAPTER, recipe=self.recipe)
        (self.folder / STATE).unlink(missing_ok=True)
        if isinstance(self.batches, NonDetMultiThreadedAugmenter):
            self.batches._finish()

    def step(self, batch: dict[str, Any]) -> float:
        """One optimiser step; returns the loss.

        Args:
            batch: ``data`` (B, channels, D, H, W) and ``target`` (B, 1, D, H, W).
        """
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.iteration, settings)
        images = batch["data"].to(self.accelerator.device)
        labels = target_labels(batch["target"], self.dataset.label_manager.ignore_label)
        target = self.model.geometry.stitch(labels.to(self.accelerator.device), fill=IGNORE)[:, 0]
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            logits = self.model.forward_canvas(images)
        loss, _ = stitched_segmentation_loss(
            logits.float(),
            target,
            ignore_index=IGNORE,
            cross_entropy_weight=settings.cross_entropy_weight,
            dice_weight=settings.dice_weight,
        )
        self.accelerator.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def validate_and_save(self, losses: list[float]) -> None:
        """Dice on the validation cases, the best adapter so far, and everything that a resumed run needs."""
        mean_dice = self.validate()
        self.log.append({"iteration": self.iteration, "loss": float(np.mean(losses)), "validation_dice": mean_dice})
        held_out = not set(self.training_ids) & set(self.validation_cases.identifiers)
        cases = "held-out cases" if held_out else "the training cases"
        tqdm.write(f"iteration {self.iteration}: loss {np.mean(losses):.4f}, Dice on {cases} {mean_dice:.4f}")
        if mean_dice > self.best_dice:
            self.best_dice = mean_dice
            save_adapter(self.model, self.dataset, self.folder / BEST_ADAPTER, recipe=self.recipe)
        write_json(self.log, self.folder / LOG)
        with replacing(self.folder / STATE) as temporary:
            torch.save(self.state(), temporary)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean over the foreground classes of the Dice, pooled over the validation cases; 0 without any foreground."""
        predictor = VolumePredictor(
            self.model, self.model.geometry.patch_size, self.dataset.settings.pseudo_labels, self.accelerator.device
        )
        ignore_label = self.dataset.label_manager.ignore_label
        overlap = np.zeros(self.dataset.num_classes)
        total = np.zeros(self.dataset.num_classes)
        for identifier in self.validation_cases.identifiers:
            image, labels, _, _ = self.validation_cases.load_case(identifier)
            truth = torch.from_numpy(labels[0].astype(np.int64))
            counted = truth != ignore_label if ignore_label is not None else torch.ones_like(truth, dtype=torch.bool)
            predicted = predictor.probabilities(torch.from_numpy(image[:])).argmax(dim=0)
            for label in range(self.dataset.num_classes):
                ours, theirs = (predicted == label) & counted, (truth == label) & counted
                overlap[label] += int((ours & theirs).sum())
                total[label] += int(ours.sum()) + int(theirs.sum())
        present = total[1:] > 0
        return float((2 * overlap[1:][present] / total[1:][present]).mean()) if present.any() else 0.0

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
        """Go on from a saved state.

        On the CPU without worker processes the steps that follow are those that an uninterrupted run would take.

        Raises:
            UserError: the file is damaged, or settings changed since.
        """
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{file}: cannot be read ({error}); run sfr_finetune --overwrite") from None
        if state.get("recipe") != self.recipe:
            raise UserError(
                f"{file}: was written with another {_changed(state.get('recipe', '{}'), self.recipe)}; restore it, or "
                "run sfr_finetune --overwrite"
            )
        load_adapter_state(self.model.sam, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.iteration, self.best_dice, self.log = state["iteration"], state["best_dice"], state["log"]
        restore_random_state(state["random_state"])


_PRECISIONS = {None: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What accelerate calls them; with float16 it scales the loss."""


def _recipe(dataset: SFRDataset, fold: Fold, this_round: Round) -> str:
    """Everything that a resumed or finished run must share with the present call, as text."""
    settings = dataset.settings.to_dict()
    relevant = {key: settings[key] for key in ("stitching", "sam", "fine_tuning")}
    cases = {"cases": dataset.split(fold)}
    return json.dumps({**relevant, **describe(dataset), **cases, **this_round.recipe}, sort_keys=True)


def _changed(before: str, now: str) -> str:
    """The names in which two recipes differ, as ``section.setting`` where there are sections.

    What follows from a setting stands in the recipe too, without a section; it counts if no section has changed.
    """
    there, here = json.loads(before or "{}"), json.loads(now)
    return ", ".join(_differences(_sections(there), _sections(here)) or _differences(there, here))


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*there, *here} if there.get(name) != here.get(name))


def _sections(recipe: dict[str, Any]) -> dict[str, Any]:
    sections = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
