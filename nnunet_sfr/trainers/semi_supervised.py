"""The trainer that every semi-supervised method shares.

It is nnU-Net's trainer with a second stream of patches, drawn from the unlabelled cases, and a teacher, the moving
average of the student. One step minimises

    L = L_sup(labelled) + w_p * L_pl(unlabelled, pseudo-labels) + w(t) * L_cons(unlabelled)

(docs/method.md, section 4) with nnU-Net's own Dice + cross-entropy and deep supervision for L_sup and L_pl. The parts
are back-propagated one after the other, so that peak memory stays near nnU-Net's own. A method states what it learns
from the unlabelled patches; docs/add-a-method.md shows how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.loaders import TwoStreams
from nnunet_sfr.data.preprocessing import check_grids
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.errors import exit_on_user_error
from nnunet_sfr.paths import TEACHER_CHECKPOINT, TRAINING_SETTINGS
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY, Resumable
from nnunet_sfr.trainers.descent import Descent, Losses
from nnunet_sfr.trainers.epoch_log import EpochLog
from nnunet_sfr.trainers.schedules import consistency_weight, teacher_decay
from nnunet_sfr.trainers.streams import open_streams
from nnunet_sfr.trainers.teacher import update_teacher

__all__ = ["CHECKPOINT_KEY", "TEACHER_CHECKPOINT", "Losses", "Patches", "SemiSupervisedTrainer"]


@dataclass(frozen=True)
class Patches:
    """A batch of one stream, on the device."""

    images: torch.Tensor
    """(n, channels, ...)"""
    targets: Any
    """A list of (n, 1, ...) label maps from full resolution down; one label map without deep supervision. With regions
    one channel for each of them."""
    identifiers: tuple[str, ...] = ()
    """Of the n cases that the patches are from; empty where nobody named them."""


class SemiSupervisedTrainer(EpochLog, Descent, Resumable):
    """Base of the trainers; a method overrides :meth:`unlabelled_losses`.

    The constructor keeps nnU-Net's signature, which its base class requires.
    """

    dataloader_train: Any
    dataloader_val: Any

    # --- what a method states ---

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        """What the method learns from besides the labels.

        Each yielded group is weighted (:attr:`loss_weights`), summed, back-propagated and freed before the generator
        goes on, so losses that share feature maps belong in one group and the others in groups of their own.

        Args:
            labelled: patches with labels, for methods that mix the two.
            unlabelled: patches of the pool, with the pseudo-labels as targets if there are any.

        Yields:
            scalar losses by name.
        """
        raise NotImplementedError

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of every loss at the present iteration; a method adds its own."""
        settings = self.active_settings
        return {
            "supervised_loss": 1.0,
            "pseudo_label_loss": settings.pseudo_label_weight,
            "consistency_loss": consistency_weight(
                self.iteration,
                total_iterations=self.total_iterations,
                maximum=settings.consistency_weight,
                ramp_up_fraction=settings.ramp_up_fraction,
            ),
        }

    # --- what a method uses ---

    def pseudo_label_losses(self, outputs: Any, unlabelled: Patches) -> Losses:
        """L_pl of what the network says of the unlabelled patches; nothing for a method without pseudo-labels.

        Args:
            outputs: of the network, with deep supervision.
            unlabelled: the patches.
        """
        return {"pseudo_label_loss": self.loss(outputs, unlabelled.targets)} if self.uses_pseudo_labels else {}

    def full_resolution(self, values: Any) -> torch.Tensor:
        """What is at full resolution, among the network's outputs (n, C, ...) or among targets (n, 1, ...)."""
        finest: torch.Tensor = values[0] if self.enable_deep_supervision else values
        return finest

    # --- data ---

    def unlabelled_dataset(self) -> UnlabelledDataset:
        """The pool: with its pseudo-labels, or images alone."""
        dataset = self.sfr_dataset
        if not self.uses_pseudo_labels:
            return UnlabelledDataset(dataset.paths.unlabelled)
        store = PseudoLabelStore.open(dataset.paths.pseudo_labels(self.fold), grid=dataset.grid)
        return PseudoLabelledDataset(dataset.paths.unlabelled, store)

    def get_dataloaders(self) -> tuple[TwoStreams, Any]:
        """Labelled and unlabelled training patches, and nnU-Net's validation patches."""
        labelled, held_out = self.get_tr_and_val_datasets()
        with exit_on_user_error():
            unlabelled = self.unlabelled_dataset()
            for cases in (labelled, held_out, unlabelled):
                check_grids(cases, self.plans_manager, self.configuration_manager)
        return open_streams(self, labelled=labelled, unlabelled=unlabelled, held_out=held_out)

    # --- training ---

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.iteration == 0:
            with exit_on_user_error():
                self.start_afresh()
        super().on_train_start()
        if self.local_rank == 0:
            with exit_on_user_error():
                self._write_settings()

    def start_afresh(self) -> None:
        """What a run begins with; a resumed one has it from its checkpoint."""
        # the student may have been given pre-trained weights since the teacher was built
        self._teacher.load_state_dict(self.student.state_dict())

    def _write_settings(self) -> None:
        used = {
            "nnunet_sfr_version": __version__,
            "torch_version": torch.__version__,
            "trainer": type(self).__name__,
            "epochs": self.num_epochs,
            **self.sfr_dataset.settings.to_dict(),
        }
        write_json(used, Path(self.output_folder, TRAINING_SETTINGS))

    def train_step(self, batch: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """One optimiser step on n labelled and n unlabelled patches.

        Args:
            batch: ``labelled`` and ``unlabelled``, each with ``data`` (n, channels, ...), ``target`` and ``keys`` (see
                :class:`Patches`).

        Returns:
            the loss and :attr:`logged_terms`, as NumPy scalars; a loss that was not asked for is 0.
        """
        labelled, unlabelled = self._patches(batch["labelled"]), self._patches(batch["unlabelled"])
        weights = self.loss_weights
        self._recorded = {"consistency_weight": np.asarray(weights["consistency_loss"])}
        self._zero_gradients()
        # With DDP the gradients are averaged once, in the last backward pass. That is the supervised one, because it
        # reaches every parameter: DDP waits for all of them, and a method without pseudo-labels leaves some heads out.
        with self._without_gradient_sync():
            losses = self._descend(self.unlabelled_losses(labelled, unlabelled), weights)
        losses |= self._descend(self._supervised_losses(labelled), weights)
        self._optimizer_step()
        update_teacher(self._teacher, self.student, teacher_decay(self.iteration, self.active_settings.ema_decay))
        self.iteration += 1
        total = np.asarray(sum(weights[name] * loss for name, loss in losses.items()))
        terms = {**self._recorded, **losses}
        return {"loss": total, **{term: terms.get(term, np.zeros(())) for term in self.logged_terms}}

    def _patches(self, batch: dict[str, Any]) -> Patches:
        identifiers = tuple(str(identifier) for identifier in batch.get("keys", ()))
        return Patches(self._to_device(batch["data"]), self._to_device(batch["target"]), identifiers)

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item.to(self.device, non_blocking=True) for item in value]
        return value.to(self.device, non_blocking=True)

    def _supervised_losses(self, labelled: Patches) -> Iterator[Losses]:
        yield {"supervised_loss": self.loss(self.network(labelled.images), labelled.targets)}

    def on_train_end(self) -> None:
        super().on_train_end()
        if isinstance(self.dataloader_train, TwoStreams):
            self.dataloader_train.finish()
