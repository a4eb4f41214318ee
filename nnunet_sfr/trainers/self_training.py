"""Self-training: the network labels the unlabelled cases, learns from its labels, and labels them again.

In SFR the first labels are the store's (SAM's, usually); without them the first part of the run learns from the
labelled cases alone (docs/method.md, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import distributed

from nnunet_sfr.confidence import ENTRIES, REFERENCES, SAM_FLIP_AGREEMENT
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.loaders import stop_workers
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.errors import UserError, exit_on_user_error
from nnunet_sfr.hashing import weights_hash
from nnunet_sfr.labelling.filling import NO_REFERENCE_STORES, ReferenceStores, label_pool, store_of_maker
from nnunet_sfr.labelling.from_network import NetworkLabeller
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.schedules import relabelling_epochs
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses

_FLIPS = "flip_agreement"


class nnUNetTrainer_ST(SemiSupervisedTrainer):
    """Self-training: L = L_sup + w_p L_pl, and no consistency.

    At stated epochs (``st.relabel_at`` of the SFR plan) nnU-Net's sliding window labels the whole pool with the network
    as it is, into a store of its own, one for each round; a run that is stopped in the middle of it continues there.
    """

    method_terms = ("pseudo_label_loss", "round")

    def initialize(self) -> None:
        super().initialize()
        self.round_index = 0
        self._relabelling_epochs = relabelling_epochs(self.active_settings.st.relabel_at, self.num_epochs)
        if not self._relabelling_epochs and not self.uses_pseudo_labels:
            raise SystemExit(
                f"error: {type(self).__name__} never labels the unlabelled cases: it needs st.relabel_at in the SFR "
                f"plan ({list(self.active_settings.st.relabel_at)}) and 2 epochs ({self.num_epochs}) or more"
            )

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        with exit_on_user_error():
            self._require_measurable()
        super().on_train_start()

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        self.record(round=self.round_index)
        if self.uses_pseudo_labels or self.round_index > 0:
            yield {"pseudo_label_loss": self.pseudo_label_loss(self.network(unlabelled.images), unlabelled)}

    # --- what the weights of the cases need of its own labels ---

    @property
    def _measured(self) -> set[str]:
        """Entries of the confidence record for ``case_measure`` that need more than the probabilities."""
        measure = self.active_settings.pseudo_weighting.case_measure
        return set() if measure is None else {*MEASURES[measure].entries} - {*ENTRIES}

    def _require_measurable(self) -> None:
        """Refuse a measure that relabelling cannot have, which it would find out after hundreds of epochs.

        Raises:
            UserError: it needs labels to compare with that there are not.
        """
        if self.round_index == len(self._relabelling_epochs):
            return
        setting = f"retraining.pseudo_weighting.case_measure: {self.active_settings.pseudo_weighting.case_measure}"
        if self._measured - {_FLIPS, SAM_FLIP_AGREEMENT, *REFERENCES}:
            raise UserError(
                f"{setting} cannot be measured of the labels that {type(self).__name__} makes; choose another measure, "
                "or null"
            )
        if not self._measured & {*REFERENCES}:
            return
        paths, folder = self.sfr_dataset.paths, self._folder(0)
        first = PseudoLabelStore.open_if_there(folder, grid=self.sfr_dataset.grid)
        if first is None:
            raise UserError(
                f"{setting} compares with the first labels, and there are none in {folder}; run sfr_pseudolabel first, "
                "or choose another measure, or null"
            )
        PseudoLabelledDataset(paths.unlabelled, first)  # refuses a store that lacks cases

    def _references(self, round_index: int) -> ReferenceStores:
        """The labels of the round before (before the first, the store's) and the store's, where they are needed."""
        if not self._measured & {*REFERENCES}:
            return NO_REFERENCE_STORES
        first, before = (
            PseudoLabelStore.open_if_there(self._folder(earlier), grid=self.sfr_dataset.grid)
            for earlier in (0, round_index - 1)
        )
        return ReferenceStores(previous_round=before, first_round=first)

    # --- rounds ---

    def on_epoch_start(self) -> None:
        due = sum(epoch <= self.current_epoch for epoch in self._relabelling_epochs)
        if due > self.round_index:
            # a run that dies while it labels finds the same network here, and so the same labels
            self.save_latest_checkpoint()
            with exit_on_user_error():
                self._relabel(due)
        super().on_epoch_start()

    def _relabel(self, round_index: int) -> None:
        dataset = self.sfr_dataset
        store = self._open_round(round_index)
        identifiers = UnlabelledDataset(dataset.paths.unlabelled).identifiers
        self.print_to_log_file(f"round {round_index}: labelling the unlabelled cases, into {store.folder}")
        labeller = NetworkLabeller(
            self.student,
            dataset,
            dataset.settings.pseudo_labels,
            self.device,
            mirror_axes=self.inference_allowed_mirroring_axes,
        )
        mirrored, references = _FLIPS in self._measured, self._references(round_index)
        ranks = distributed.get_world_size() if self.is_ddp else 1
        for start in range(0, len(identifiers), ranks):
            mine = identifiers[start + self.local_rank :][:1]
            label_pool(store, dataset, labeller, mine, mirrored=mirrored, references=references)
            # case by case: a rank that waits for the others' whole share could run into NCCL's timeout
            self._wait_for_all_ranks()
        self.round_index = round_index
        self._reopen_streams()
        if self.local_rank == 0:
            self._write_settings()  # which say what made the labels

    def _open_round(self, round_index: int) -> PseudoLabelStore:
        """The store of a round, emptied if another network began it, or without what the weights of the cases need."""
        dataset = self.sfr_dataset
        folder = self._folder(round_index)
        made_by = Provenance.of_training(
            type(self).__name__,
            dataset.settings,
            fold=self.fold,
            round_index=round_index,
            epoch=self.current_epoch,
            weights_sha256=weights_hash(self.student),
            measured=sorted(self._measured),
        )
        if self.local_rank == 0:
            store_of_maker(dataset, folder, made_by)  # one of another maker was left by an earlier training
        self._wait_for_all_ranks()
        return PseudoLabelStore.open(folder, grid=dataset.grid)

    def _folder(self, round_index: int) -> Path:
        trainer = type(self).__name__ if round_index > 0 else None
        return self.sfr_dataset.paths.pseudo_labels(self.fold, trainer=trainer, round_index=round_index)

    def _wait_for_all_ranks(self) -> None:
        if self.is_ddp:
            distributed.barrier()

    def _reopen_streams(self) -> None:
        self.dataloader_train.stop_workers()
        stop_workers(self.dataloader_val)
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()

    def unlabelled_dataset(self) -> UnlabelledDataset:
        """The pool with the labels of the present round."""
        if self.round_index == 0:
            return super().unlabelled_dataset()
        dataset = self.sfr_dataset
        store = PseudoLabelStore.open(self._folder(self.round_index), grid=dataset.grid)
        cases = self.pseudo_labelled(store)
        first = PseudoLabelStore.open_if_there(self._folder(0), grid=dataset.grid) if self.uses_pseudo_labels else None
        if first is not None:
            cases.made_by = store.made_by.beside(first_labels=first.made_by)
        return cases

    def method_state(self) -> dict[str, Any]:
        return {"round_index": self.round_index}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.round_index = state["round_index"]


class nnUNetTrainerSFR_ST(nnUNetTrainer_ST):
    """SFR with self-training: the first labels are the store's."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_ST(LaterRound):
    """A later round of SFR+ with self-training: L = L_sup + w_p L_pl on all unlabelled patches, and no consistency.

    The cases of high confidence have the labels of the re-trained model itself, the others SAM's new ones. Nothing is
    labelled within the round (``st.relabel_at`` is not looked at): the rounds are the relabelling.
    """

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        self.record_confidence(unlabelled)
        yield {"pseudo_label_loss": self.pseudo_label_loss(self.network(unlabelled.images), unlabelled)}

    def unlabelled_dataset(self) -> UnlabelledDataset:
        """The pool: cases of high confidence with the model's labels, the others with SAM's."""
        by_sam = super().unlabelled_dataset()
        paths = self.sfr_dataset.paths
        store = self.open_store(
            paths.model_pseudo_labels(self.fold, self.round_index),
            "sfr_pseudolabel -tr <trainer of the previous round>",
        )
        selection = self.selection()
        if not selection.is_of(store):
            raise UserError(
                f"{store.folder}: was filled again since the cases were chosen; run sfr_select --round "
                f"{self.round_index}, and what comes after it, again"
            )
        by_model = self.pseudo_labelled(store, selection.high)
        return _TwoSources(by_sam, by_model)


class _TwoSources(UnlabelledDataset):
    """The pool with the labels of one data set, except for the cases of high confidence, which the other has."""

    def __init__(self, cases: UnlabelledDataset, exceptions: UnlabelledDataset) -> None:
        super().__init__(cases.source_folder, cases.identifiers)
        self.voxel_confidence = cases.voxel_confidence
        if cases.made_by is not None and exceptions.made_by is not None:
            self.made_by = cases.made_by.beside(high_confidence=exceptions.made_by)
        self._sources = dict.fromkeys(cases.identifiers, cases) | dict.fromkeys(exceptions.identifiers, exceptions)

    def confidence(self, identifier: str) -> dict[str, Any] | None:
        return self._sources[identifier].confidence(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        return self._sources[identifier].load_case(identifier)
