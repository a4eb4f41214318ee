"""What the re-trained model says of the pool before a round of SFR+, for ``sfr_pseudolabel --round r -tr TRAINER``.

``sfr_select`` reads how sure it is, and SAM learns from its labels of the cases that it is sure of.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.common import EVERYTHING, Share, fill_store, open_if_there
from nnunet_sfr.labelling.from_network import NetworkLabeller
from nnunet_sfr.labelling.trained_model import TrainedModel, open_model
from nnunet_sfr.paths import FINAL_CHECKPOINT, Fold
from nnunet_sfr.plans import derived_from

SOURCE = "retraining"
CHECKPOINT = FINAL_CHECKPOINT
"""The student, which is what a round goes on with."""


def label_from_retraining(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    trainer: str,
    round_index: int,
    share: Share = EVERYTHING,
) -> PseudoLabelStore:
    """Label the whole pool with the model of the previous round, from the preprocessed images.

    Args:
        dataset: planned and preprocessed.
        fold: of the model.
        device: to compute on.
        trainer: name of the trainer whose model it is, as ``nnUNetv2_train -tr`` had it.
        round_index: the round that is about to begin, from 1.
        share: what this call takes of the work.

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
    model = open_model(folder, [fold], CHECKPOINT, dataset, device)
    _check_grid(model, dataset)
    predictor = model.predictor
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    settings = dataset.settings.pseudo_labels
    labeller = NetworkLabeller(
        predictor.network, dataset, settings, device, mirror_axes=predictor.allowed_mirroring_axes
    )
    return fill_store(
        dataset,
        paths.model_pseudo_labels(fold, round_index),
        labeller,
        _made_by(dataset, fold, round_index, model),
        share=share,
        others=_others(dataset, fold, round_index),
    )


def _check_grid(model: TrainedModel, dataset: SFRDataset) -> None:
    """The model predicts preprocessed images: they have to be those that it was trained on."""
    plans = model.predictor.plans_manager
    theirs = json.loads(json.dumps(derived_from(plans.plans, model.predictor.configuration_manager.configuration)))
    for key, value in dataset.settings.derived_from.items():
        if theirs[key] != value:
            raise UserError(
                f"{model.folder}: was trained for {key} {theirs[key]}, the plan has {value}; train it again"
            )


def _others(dataset: SFRDataset, fold: Fold, round_index: int) -> dict[str, PseudoLabelStore | None]:
    """What to compare with: what the model said a round ago (before the first round: what SAM said), and round 0.

    The labels of round 0 are an opinion of their own: who made them has learned nothing from the model.
    """
    paths = dataset.paths
    first = open_if_there(paths.pseudo_labels(fold), dataset)
    previous = open_if_there(paths.model_pseudo_labels(fold, round_index - 1), dataset) if round_index > 1 else first
    return {"previous_round_agreement": previous, "sam_agreement": first}


def _made_by(dataset: SFRDataset, fold: Fold, round_index: int, model: TrainedModel) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "fold": fold,
        "round": round_index,
        "model": model.folder.name,
        **model.describe(),
        "pseudo_labels": dataset.settings.to_dict()["pseudo_labels"],
    }
