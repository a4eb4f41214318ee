"""A trained nnU-Net model on disk, whoever trained it: opened, and compared with our data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_sfr.data.dataset_json import channel_names
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.label_names import IGNORE_NAME
from nnunet_sfr.labelling.foreign_code import require_no_code
from nnunet_sfr.labelling.nnunet_predictor import make_predictor
from nnunet_sfr.paths import DATASET_JSON, FOLDS_PATTERN, PLANS_JSON, Fold, fold_name, fold_of
from nnunet_sfr.silence import without_printing
from nnunet_sfr.wording import reason


@dataclass(frozen=True)
class TrainedModel:
    """A model that is ready to predict.

    Args:
        folder: ``<Trainer>__<Plans>__<configuration>``.
        checkpoints: the file of every fold; with several the logits are averaged.
        predictor: nnU-Net's, with the model in it.
    """

    folder: Path
    checkpoints: tuple[Path, ...]
    predictor: nnUNetPredictor


def open_model(
    folder: Path,
    folds: Sequence[Fold] | None,
    checkpoint: str,
    dataset: SFRDataset,
    device: torch.device,
    *,
    trust: bool = False,
) -> TrainedModel:
    """Open a model folder as nnUNetv2_predict_from_modelfolder does.

    Args:
        folder: ``<Trainer>__<Plans>__<configuration>`` with ``plans.json``, ``dataset.json`` and ``fold_*``.
        folds: to average; None for all that have the checkpoint.
        checkpoint: file name in each fold.
        dataset: to predict; its SFR plan says how (section ``pseudo_labels``).
        device: to compute on.
        trust: whether the files may hold more than nnU-Net's own types, and so run any code.

    Raises:
        UserError: not a model folder, a missing or broken checkpoint, one that could run code, other labels or channels
            than those of the data set, or the second stage of a cascade.
    """
    remedy = "name a trained model's folder, <Trainer>__<Plans>__<configuration> in nnUNet_results"
    theirs = read_json(folder / DATASET_JSON, remedy)
    plans = read_json(folder / PLANS_JSON, remedy)
    checkpoints = _checkpoint_files(folder, folds, checkpoint)
    try:
        _check_meaning(theirs, dataset.dataset_json, folder / DATASET_JSON)
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / DATASET_JSON}: is not nnU-Net's ({error!r}); {remedy}") from None
    if not trust:
        require_no_code(checkpoints, plans, folder / PLANS_JSON)
    predictor = make_predictor(dataset.settings.pseudo_labels, device)
    _load(predictor, folder, checkpoints)
    stage = predictor.configuration_manager.previous_stage_name
    if stage is not None:
        raise UserError(f"{folder}: is the second stage of a cascade, which needs what {stage} predicts; use {stage}")
    return TrainedModel(folder, checkpoints, predictor)


def _checkpoint_files(folder: Path, folds: Sequence[Fold] | None, checkpoint: str) -> tuple[Path, ...]:
    there = sorted(fold_of(file.parent) for file in folder.glob(f"{FOLDS_PATTERN}/{checkpoint}"))
    wanted = there if folds is None else [str(fold) for fold in folds]
    if not wanted:
        raise UserError(f"{folder}: no fold has a {checkpoint}; train the model first, or choose --model-checkpoint")
    missing = [fold for fold in wanted if fold not in there]
    if missing:
        raise UserError(
            f"{folder / fold_name(missing[0]) / checkpoint}: not found; "
            f"choose --model-folds among {', '.join(there) or 'none'}, or --model-checkpoint"
        )
    return tuple(folder / fold_name(fold) / checkpoint for fold in dict.fromkeys(wanted))


def _check_meaning(theirs: dict[str, Any], ours: dict[str, Any], file: Path) -> None:
    """Label values and channels have to mean the same in the model and in our data set."""
    if _labels(theirs) != _labels(ours):
        raise UserError(f"{file}: the model's labels are {_labels(theirs)}, those of this data set {_labels(ours)}")
    if channel_names(theirs) != channel_names(ours):
        raise UserError(
            f"{file}: the model's channels are {', '.join(channel_names(theirs))}, those of this data set "
            f"{', '.join(channel_names(ours))}"
        )


def _labels(dataset_json: dict[str, Any]) -> list[Any]:
    """Names and values (without the ignore label, which no network predicts) as text that can be compared.

    A network has a head for each region in the order in which the file names them; of plain labels only values count.
    """
    labels = [[name, value] for name, value in dataset_json["labels"].items() if name != IGNORE_NAME]
    if any(isinstance(value, list) and len(value) > 1 for _, value in labels):
        return [*labels, dataset_json.get("regions_class_order")]
    return sorted(labels, key=lambda label: str(label))


def _load(predictor: nnUNetPredictor, folder: Path, checkpoints: Sequence[Path]) -> None:
    folds = tuple(fold_of(file.parent) for file in checkpoints)
    name = checkpoints[0].name
    try:
        # nnU-Net says where it looks for trainers
        with without_printing():
            predictor.initialize_from_trained_model_folder(str(folder), folds, name)
    except Exception as error:
        raise UserError(f"{folder}: nnU-Net cannot load {name} of fold {', '.join(folds)} ({reason(error)})") from None
