"""The trainer that every semi-supervised method shares.

It is nnU-Net's trainer with a second stream of patches, drawn from the unlabelled cases, and a teacher, the moving
average of the student. One step minimises

    L = L_sup(labelled) + w_p * L_pl(unlabelled, pseudo-labels) + w(t) * L_cons(unlabelled)

(docs/method.md, section 4) with nnU-Net's own Dice + cross-entropy and deep supervision for L_sup and L_pl. The parts
are back-propagated one after the other, so that peak memory stays near nnU-Net's own. A method states what it learns
from the unlabelled patches; docs/add-a-method.md shows how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.loaders import TwoStreams
from nnunet_sfr.data.preprocessed_grid import check_grids
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.errors import UserError, exit_on_user_error
from nnunet_sfr.paths import TRAINING_SETTINGS
from nnunet_sfr.trainers.checkpoints import Resumable
from nnunet_sfr.trainers.epoch_log import EpochLog
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.pseudo_label_loss import PseudoLabelLoss, case_weights
from nnunet_sfr.trainers.schedules import consistency_weight, falling_share, teacher_decay
from nnunet_sfr.trainers.sequential_backward import Losses, SequentialBackward
from nnunet_sfr.trainers.streams import open_streams
from nnunet_sfr.trainers.teacher import update_teacher
from nnunet_sfr.trainers.weighted_loss import at_resolutions, weighted_loss


class SemiSupervisedTrainer(EpochLog, SequentialBackward, Resumable):
    """Base of the trainers; a method overrides :meth:`unlabelled_losses`.

    The constructor keeps nnU-Net's signature, which its base class requires.
    """

    uses_pseudo_labels: ClassVar[bool] = False
    """Whether the unlabelled stream has pseudo-labels (w_p of the SFR plan) or images alone (w_p = 0)."""
    method_terms: ClassVar[tuple[str, ...]] = ()
    """What the method logs: losses that it yields, and numbers that it gives to :meth:`record`."""

    dataloader_train: Any
    dataloader_val: Any
    pseudo_label_loss: PseudoLabelLoss
    """L_pl of outputs and patches; there from :meth:`initialize` on."""
    _delivers_voxel_confidence = False

    # --- what a method states ---

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        """What the method learns from besides the labels.

        Each yielded group is weighted (:attr:`loss_weights`), summed, back-propagated and freed before the generator
        continues, so losses that share feature maps belong in one group and the others in groups of their own.

        Args:
            labelled: patches with labels, for methods that mix the two.
            unlabelled: patches of the pool, with the pseudo-labels as targets if there are any.

        Yields:
            scalar losses by name.
        """
        raise NotImplementedError

    def supervised_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        """What the method learns from the labels, L_sup unless it says otherwise; asked for last.

        With DDP the gradients are averaged over the GPUs in these backward passes, and each has to reach every
        parameter of the network through ``self.network``.

        Args:
            labelled: patches with labels.
            unlabelled: as in :meth:`unlabelled_losses`, for methods that mix the two.

        Yields:
            scalar losses by name.
        """
        yield {"supervised_loss": self.loss(self.network(labelled.images), labelled.targets)}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of every loss at the present iteration; a method adds its own."""
        settings = self.active_settings
        return {
            "supervised_loss": 1.0,
            "pseudo_label_loss": settings.pseudo_label_weight
            * falling_share(
                self.progress,
                falls_from=settings.pseudo_weighting.falls_from,
                final_share=settings.pseudo_weighting.final_share,
            ),
            "consistency_loss": consistency_weight(
                self.iteration,
                total_iterations=self.schedule_iterations,
                maximum=settings.consistency_weight,
                ramp_up_fraction=settings.ramp_up_fraction,
            ),
        }

    @property
    def logged_terms(self) -> tuple[str, ...]:
        """The losses and the weights that change during the run."""
        terms = ["supervised_loss", *(["pseudo_label_loss"] if self.uses_pseudo_labels else []), *self.method_terms]
        if "consistency_loss" in terms:
            terms.append("consistency_weight")
        if "pseudo_label_loss" in terms and self.active_settings.pseudo_weighting.final_share < 1:
            terms.append("pseudo_label_weight")
        return tuple(dict.fromkeys(terms))

    # --- what a method uses ---

    def pseudo_label_losses(self, outputs: Any, unlabelled: Patches) -> Losses:
        """L_pl of the network's outputs for the unlabelled patches; nothing for a method without pseudo-labels.

        Args:
            outputs: of the network, with deep supervision.
            unlabelled: the patches.
        """
        return {"pseudo_label_loss": self.pseudo_label_loss(outputs, unlabelled)} if self.uses_pseudo_labels else {}

    def weighted_loss(self, outputs: Any, targets: Any, voxel_weights: torch.Tensor) -> torch.Tensor:
        """nnU-Net's loss with a weight for every voxel (:class:`nnunet_sfr.trainers.weighted_loss.WeightedLoss`).

        Args:
            outputs: of the network, with deep supervision.
            targets: as in :class:`nnunet_sfr.trainers.patches.Patches`.
            voxel_weights: (n, 1, ...) or (1, 1, ...) at full resolution; a voxel of weight 0 takes no part.
        """
        full = self.full_resolution(targets)
        weights = voxel_weights.expand(len(full), *voxel_weights.shape[1:])
        loss: torch.Tensor = (
            self._weighted_loss(outputs, targets, at_resolutions(weights, targets))
            if self.enable_deep_supervision
            else self._weighted_loss(outputs, targets, weights)
        )
        return loss

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
        return self.pseudo_labelled(PseudoLabelStore.open(dataset.paths.pseudo_labels(self.fold), grid=dataset.grid))

    def pseudo_labelled(
        self, store: PseudoLabelStore, identifiers: Sequence[str] | None = None
    ) -> PseudoLabelledDataset:
        """Cases of the pool with the labels of a store, and with its voxel confidence where the settings need it.

        Args:
            store: with a label for each of the cases.
            identifiers: None for the whole pool.
        """
        return PseudoLabelledDataset(
            self.sfr_dataset.paths.unlabelled,
            store,
            None if identifiers is None else list(identifiers),
            voxel_confidence=self.active_settings.pseudo_weighting.needs_voxel_confidence,
        )

    def get_dataloaders(self) -> tuple[TwoStreams, Any]:
        """Labelled and unlabelled training patches, and nnU-Net's validation patches."""
        labelled, held_out = self.get_tr_and_val_datasets()
        with exit_on_user_error():
            unlabelled = self.unlabelled_dataset()
            for cases in (labelled, held_out, unlabelled):
                check_grids(cases, self.plans_manager, self.configuration_manager)
            self.pseudo_label_loss.case_weights = self._case_weights(unlabelled)
        self._delivers_voxel_confidence = unlabelled.voxel_confidence
        made_by = unlabelled.made_by
        self._trained_on = {
            "labelled": sorted(labelled.identifiers),
            "unlabelled": sorted(unlabelled.identifiers),
            "pseudo_labels_made_by": None if made_by is None else made_by.to_json(),
        }
        return open_streams(
            self,
            labelled=labelled,
            unlabelled=unlabelled,
            held_out=held_out,
            voxel_confidence=self._delivers_voxel_confidence,
        )

    def _case_weights(self, unlabelled: UnlabelledDataset) -> dict[str, float] | None:
        weighting = self.active_settings.pseudo_weighting
        if weighting.case_measure is None:
            return None
        records = {identifier: unlabelled.confidence(identifier) for identifier in unlabelled.identifiers}
        known = {identifier: record for identifier, record in records.items() if record is not None}
        return case_weights(known, weighting) if known else None

    # --- training ---

    def initialize(self) -> None:
        super().initialize()
        with exit_on_user_error():
            self.pseudo_label_loss = self._build_pseudo_label_loss(self.loss)
        self._weighted_loss = weighted_loss(self.loss)

    def _build_pseudo_label_loss(self, loss: nn.Module) -> PseudoLabelLoss:
        """L_pl; the weights of the cases follow when the pool is opened.

        Args:
            loss: nnU-Net's.

        Raises:
            UserError: soft targets are asked for where there are regions.
        """
        weighting, labels = self.active_settings.pseudo_weighting, self.label_manager
        if weighting.soft_targets and labels.has_regions:
            raise UserError(
                "retraining.pseudo_weighting.soft_targets: this data set has regions, which have hard targets alone; "
                "set it to false"
            )
        return PseudoLabelLoss(loss, weighting, num_classes=labels.num_segmentation_heads, regions=labels.has_regions)

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.iteration == 0:
            with exit_on_user_error():
                self.load_initial_state()
        super().on_train_start()
        # continued after its end, for its validation, it learns nothing of the settings and cases of today
        is_finished = self.current_epoch >= self.num_epochs and Path(self.output_folder, TRAINING_SETTINGS).is_file()
        if self.local_rank == 0 and not is_finished:
            with exit_on_user_error():
                self._write_settings()

    def load_initial_state(self) -> None:
        """What a run begins with; a resumed one has it from its checkpoint."""
        # the student may have been given pre-trained weights since the teacher was built
        self._teacher.load_state_dict(self.student.state_dict())

    def _write_settings(self) -> None:
        used = {
            "nnunet_sfr_version": __version__,
            "torch_version": torch.__version__,
            "trainer": type(self).__name__,
            "nnunetv2_version": version("nnunetv2"),
            "epochs": self.num_epochs,
            "trained_on": self._trained_on,
            **self.sfr_dataset.settings.to_dict(),
        }
        write_json(used, Path(self.output_folder, TRAINING_SETTINGS))

    def train_step(self, batch: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """One optimiser step on n labelled and n unlabelled patches.

        Args:
            batch: ``labelled`` and ``unlabelled``, each with ``data`` (n, channels, ...), ``target`` and ``keys`` (see
                :class:`Patches`).

        Returns:
            the loss and :attr:`logged_terms`, as arrays without axes; a loss that was not asked for is 0.
        """
        labelled = self._patches(batch["labelled"])
        unlabelled = self._patches(batch["unlabelled"], voxel_confidence=self._delivers_voxel_confidence)
        weights = self.loss_weights
        self._recorded = {f"{name}_weight": weights[f"{name}_loss"] for name in ("consistency", "pseudo_label")}
        self._zero_gradients()
        # With DDP the gradients are averaged once, in the last backward pass. That is the supervised one, because it
        # reaches every parameter: DDP waits for all of them, and a method without pseudo-labels leaves some heads out.
        with self._without_gradient_sync():
            losses = self._backward_in_turn(self.unlabelled_losses(labelled, unlabelled), weights)
        losses |= self._backward_in_turn(self.supervised_losses(labelled, unlabelled), weights)
        self._optimizer_step()
        update_teacher(self._teacher, self.student, teacher_decay(self.iteration, self.active_settings.ema_decay))
        self.iteration += 1
        total = sum(weights[name] * loss for name, loss in losses.items())
        terms = {**self._recorded, **losses}
        values = {"loss": total, **{term: terms.get(term, 0.0) for term in self.logged_terms}}
        # all of one type: nnU-Net collates an epoch by the type of the first step's value
        return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}

    def _patches(self, batch: dict[str, Any], *, voxel_confidence: bool = False) -> Patches:
        identifiers = tuple(str(identifier) for identifier in batch.get("keys", ()))
        images, targets = self._to_device(batch["data"]), self._to_device(batch["target"])
        if not voxel_confidence:
            return Patches(images, targets, identifiers)
        *targets, confidence = targets
        return Patches(images, targets if self.enable_deep_supervision else targets[0], identifiers, confidence)

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item.to(self.device, non_blocking=True) for item in value]
        return value.to(self.device, non_blocking=True)

    def on_train_end(self) -> None:
        super().on_train_end()
        if isinstance(self.dataloader_train, TwoStreams):
            self.dataloader_train.stop_workers()
