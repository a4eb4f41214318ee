"""The re-trained model's labels of the pool before a round of SFR+, for ``sfr_pseudolabel --round r -tr TRAINER``.

``sfr_select`` reads how sure it is, and SAM learns from its labels of the cases that it is sure of.
"""

from __future__ import annotations

import torch
from torch._dynamo import OptimizedModule

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import first_difference
from nnunet_sfr.labelling.filling import ALL_CASES, CasePartition, ReferenceStores, fill_store
from nnunet_sfr.labelling.from_network import NetworkLabeller
from nnunet_sfr.labelling.trained_model import TrainedModel, open_model
from nnunet_sfr.paths import FINAL_CHECKPOINT, Fold
from nnunet_sfr.plans import derived_from

CHECKPOINT = FINAL_CHECKPOINT
"""The student, which is what a round continues."""


def label_from_retraining(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    trainer: str,
    round_index: int,
    trust: bool = False,
    partition: CasePartition = ALL_CASES,
) -> PseudoLabelStore:
    """Label the whole pool with the model of the previous round, from the preprocessed images.

    Args:
        dataset: planned and preprocessed.
        fold: of the model.
        device: to compute on.
        trainer: name of the trainer whose model it is, as ``nnUNetv2_train -tr`` had it.
        round_index: the round that is about to begin, from 1.
        trust: whether the model's files may run code (see :func:`nnunet_sfr.labelling.trained_model.open_model`).
        partition: what this call takes of the work.

    Raises:
        UserError: a fold that does not exist, no unlabelled cases, no such model, one of another plan, or a store of
            another maker.
    """
    paths = dataset.paths
    dataset.split(fold)  # refuses a fold that no training can have
    UnlabelledDataset(paths.unlabelled)
    folder = paths.model(trainer)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such model; train it with nnUNetv2_train, or choose another -tr")
    model = open_model(folder, [fold], CHECKPOINT, dataset, device, trust=trust)
    return fill_store(
        dataset,
        paths.model_pseudo_labels(fold, round_index),
        labeller_of_preprocessed(model, dataset, device),
        Provenance.of_retraining(
            model.checkpoints[0],
            dataset.settings,
            fold=fold,
            round_index=round_index,
            trainer=model.predictor.trainer_name,
        ),
        partition=partition,
        references=_references(dataset, fold, round_index),
    )


def labeller_of_preprocessed(model: TrainedModel, dataset: SFRDataset, device: torch.device) -> NetworkLabeller:
    """A trained model, of one fold, as what labels cases on the grid that it was trained on.

    Args:
        model: opened for ``dataset``.
        dataset: whose preprocessed cases it is to label.
        device: to compute on.

    Raises:
        UserError: it was trained on another grid.
    """
    _check_grid(model, dataset)
    predictor = model.predictor
    network = predictor.network
    if isinstance(network, OptimizedModule):  # with nnUNet_compile set, nnU-Net has wrapped it
        network = network._orig_mod
    network.load_state_dict(predictor.list_of_parameters[0])
    settings = dataset.settings.pseudo_labels
    return NetworkLabeller(network, dataset, settings, device, mirror_axes=predictor.allowed_mirroring_axes)


def _check_grid(model: TrainedModel, dataset: SFRDataset) -> None:
    """The model predicts preprocessed images: they have to be those that it was trained on."""
    plans = model.predictor.plans_manager
    theirs = derived_from(plans.plans, model.predictor.configuration_manager.configuration)
    ours = dataset.settings.derived_from
    key = first_difference(theirs, ours)
    if key is not None:
        raise UserError(
            f"{model.folder}: was trained for {key} {theirs.get(key)}, the plan has {ours[key]}; train it again"
        )


def _references(dataset: SFRDataset, fold: Fold, round_index: int) -> ReferenceStores:
    """What to compare with: the model's labels of a round ago (before the first round: SAM's), and those of round 0.

    The labels of round 0 are independent: what made them has learned nothing from the model.
    """
    paths, grid = dataset.paths, dataset.grid
    first = PseudoLabelStore.open_if_there(paths.pseudo_labels(fold), grid=grid)
    if round_index == 1:
        return ReferenceStores(previous_round=first, first_round=first)
    previous = PseudoLabelStore.open_if_there(paths.model_pseudo_labels(fold, round_index - 1), grid=grid)
    return ReferenceStores(previous_round=previous, first_round=first)
