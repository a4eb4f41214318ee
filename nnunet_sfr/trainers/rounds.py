"""The later rounds of SFR+: a re-training that continues the one before, with new labels where that one was unsure.

Before round r the re-trained model labels the pool. SAM learns its labels of the cases of high confidence and labels
the pool again; the model learns SAM's new labels of the cases of low confidence (docs/method.md, section 5). This is
that last part, for every method.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import fold_name
from nnunet_sfr.plans import SFRConfiguration
from nnunet_sfr.selection import Selection, read_selection
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.distributed import mean_over_ranks
from nnunet_sfr.trainers.patches import Patches, select_items
from nnunet_sfr.trainers.pseudo_label_loss import PseudoLabelLoss
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses
from nnunet_sfr.trainers.supervised_loss import within_its_rank


class LaterRound(SemiSupervisedTrainer):
    """A round of SFR+ of the method that it stands in front of: ``class …SFRPlus_MT(LaterRound, …SFR_MT)``.

    * L_pl is the mean over the patches of low confidence, with SAM's labels of this round. What else the method learns
      from unlabelled patches, it learns from all of them.
    * Student, teacher and the method's own modules continue from the checkpoint that labelled the pool for this round
      (so nnU-Net's ``-pretrained_weights`` change nothing). So does the count of iterations: a later round does not
      ramp up again. Optimiser and learning rate start from the beginning.
    * A run that is resumed has all that in its own checkpoint and reads nothing of the previous round.
    """

    round_index: ClassVar[int] = 1
    """Set by the suffix ``_round<r>`` of a trainer's name."""
    uses_pseudo_labels = True
    low_confidence: frozenset[str]
    """Identifiers of the cases that have a pseudo-label loss; known when the streams are open."""

    def _build_pseudo_label_loss(self, loss: nn.Module) -> PseudoLabelLoss:
        # every rank has another number of patches with a pseudo-label
        return super()._build_pseudo_label_loss(within_its_rank(loss))

    def planned_epochs(self, settings: SFRConfiguration) -> int:
        return max(1, round(settings.rounds.retraining_fraction * settings.retraining.epochs))

    @property
    def schedule_iterations(self) -> int:
        """Iterations of the rounds before: the schedules that ramp up are at their end."""
        return self.first_iteration

    @property
    def logged_terms(self) -> tuple[str, ...]:
        return (*super().logged_terms, "low_confidence_share")

    # --- which labels ---

    def selection(self) -> Selection:
        """Which cases the model of the previous round is sure of, and which model that is.

        Raises:
            UserError: there is no selection yet, or one among other cases.
        """
        paths = self.sfr_dataset.paths
        file = paths.selection(self.fold, self.round_index)
        if not file.is_file():
            raise UserError(f"{file}: not found; run sfr_select --round {self.round_index} first")
        return read_selection(file, UnlabelledDataset(paths.unlabelled).identifiers)

    def unlabelled_dataset(self) -> UnlabelledDataset:
        """The pool with SAM's labels of this round, of which :meth:`pseudo_label_losses` takes those it needs."""
        paths = self.sfr_dataset.paths
        self.low_confidence = frozenset(self.selection().low)
        store = self.open_store(paths.pseudo_labels(self.fold, round_index=self.round_index), "sfr_pseudolabel")
        cases = self.pseudo_labelled(store)
        low, pool = len(self.low_confidence), len(cases.identifiers)
        self.print_to_log_file(f"round {self.round_index}: SAM's labels are used in {low} of {pool} unlabelled cases")
        return cases

    def open_store(self, folder: Path, command: str) -> PseudoLabelStore:
        """Open a store of this round.

        Args:
            folder: of the store.
            command: that fills it.

        Raises:
            UserError: it is not there, or made for another plan.
        """
        if not PseudoLabelStore.exists(folder):
            raise UserError(f"{folder}: there are no pseudo-labels; run {command} --round {self.round_index} first")
        return PseudoLabelStore.open(folder, grid=self.sfr_dataset.grid)

    # --- the loss ---

    def low_confidence_patches(self, unlabelled: Patches) -> list[int]:
        """Places of the patches of low-confidence cases in the batch."""
        places = zip(range(len(unlabelled.images)), unlabelled.identifiers, strict=True)
        return [place for place, identifier in places if identifier in self.low_confidence]

    def record_confidence(self, unlabelled: Patches) -> None:
        """Log which share of the batch is of low confidence."""
        self.record(low_confidence_share=len(self.low_confidence_patches(unlabelled)) / len(unlabelled.images))

    def pseudo_label_losses(self, outputs: Any, unlabelled: Patches) -> Losses:
        """L_pl over the patches of low confidence; nothing where the batch has none.

        With DDP the mean over a rank's patches is weighted with their number, so that the averaged gradient is that of
        the mean over all ranks' patches.

        Args:
            outputs: of the network for the unlabelled patches, one tensor for each resolution.
            unlabelled: the patches and their pseudo-labels.
        """
        self.record_confidence(unlabelled)
        low = self.low_confidence_patches(unlabelled)
        # a rank without such patches is waited for here too
        mean_number = mean_over_ranks(torch.tensor(float(len(low)), device=self.device))
        if not low:
            return {}
        loss = self.pseudo_label_loss(select_items(outputs, low), unlabelled.select_items(low))
        return {"pseudo_label_loss": loss * (len(low) / mean_number)}

    # --- continuing the previous round ---

    def load_initial_state(self) -> None:
        """Take over the previous round's student, teacher, modules, method and count of iterations.

        Raises:
            UserError: there is no selection, or the checkpoint that it names cannot be gone on from.
        """
        file, checkpoint = self._read_previous_checkpoint()
        self._load_previous_weights(file, checkpoint)
        previous = checkpoint[CHECKPOINT_KEY]
        if super().method_state().keys() <= previous["method"].keys():  # the same method's
            super().load_method_state(previous["method"])
        self.iteration = self.first_iteration = previous["iteration"]
        self._seed_new_stream()  # the seed of the settings would draw the patches of the first round again
        self.print_to_log_file(f"round {self.round_index}: continues from {file} at iteration {self.iteration}")

    def _read_previous_checkpoint(self) -> tuple[Path, dict[str, Any]]:
        """The checkpoint that labelled the pool for this round, and its file.

        Raises:
            UserError: the selection does not name it, or it is missing, another one by now, or not of our trainers.
        """
        paths, model = self.sfr_dataset.paths, self.selection().model
        again = f"run sfr_pseudolabel --round {self.round_index}"
        try:
            trainer, fold = model["trainer"], fold_name(self.fold)
            name, expected_hash = model["checkpoints"][fold]
            file = paths.results / model["model"] / fold / name
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{paths.selection(self.fold, self.round_index)}: names no model of fold {self.fold} to continue from; "
                f"{again} -tr <trainer of the previous round>, then sfr_select"
            ) from None
        if not file.is_file():
            raise UserError(f"{file}: not found, but the round continues from it; train {trainer} again, then {again}")
        if file_hash(file) != expected_hash:
            raise UserError(
                f"{file}: was trained again since it labelled the cases of this round; {again} -tr {trainer} "
                "--overwrite, and what comes after it, again"
            )
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
        if CHECKPOINT_KEY not in checkpoint:
            raise UserError(
                f"{file}: has no teacher to continue with, as checkpoint_final.pth of an SFR trainer has; {again} -tr "
                "<SFR trainer>"
            )
        return file, checkpoint

    def _load_previous_weights(self, file: Path, checkpoint: Mapping[str, Any]) -> None:
        previous = checkpoint[CHECKPOINT_KEY]
        try:
            self.student.load_state_dict(checkpoint["network_weights"])
            self._teacher.load_state_dict(previous["teacher_weights"])
        except RuntimeError:
            raise UserError(
                f"{file}: its network is not the one of {self.sfr_dataset.paths.plans_file}, which has changed since; "
                "begin with round 0 again"
            ) from None
        try:
            self.extra_modules.load_state_dict(previous["extra_modules"])
        except RuntimeError:
            raise UserError(
                f"{file}: is of {checkpoint['trainer_name']}, which trains other modules beside the network than "
                f"{type(self).__name__}; continue with the same method and its settings"
            ) from None

    def method_state(self) -> dict[str, Any]:
        return {**super().method_state(), "first_iteration": self.first_iteration}

    def load_method_state(self, state: dict[str, Any]) -> None:
        super().load_method_state(state)
        self.first_iteration = state["first_iteration"]
