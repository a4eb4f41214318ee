"""What the card of a model states, gathered from its folder, the data set and an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr.data.dataset_json import channel_names
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import FINAL_CHECKPOINT, MANIFEST, TEACHER_CHECKPOINT, TRAINING_SETTINGS, Fold, fold_name
from nnunet_sfr.plans import SFRConfiguration
from nnunet_sfr.trainers import find_trainer
from nnunet_sfr.trainers.measured_metrics import read_evaluation, read_validation
from nnunet_sfr.trainers.model_card import ModelFacts

_REMEDY = "delete it; the model's card will then say less"


def read_model_facts(
    dataset: SFRDataset,
    model_folder: Path,
    folds: Sequence[Fold],
    *,
    checkpoint: str = FINAL_CHECKPOINT,
    use_teacher: bool = False,
    evaluation: Path | None = None,
) -> ModelFacts:
    """Gather what the card of a trained model states.

    Args:
        dataset: of the model, planned.
        model_folder: ``<trainer>__<plans>__<configuration>``.
        folds: that are exported.
        checkpoint: file name of the checkpoint in each fold.
        use_teacher: whether the teacher's weights in it are exported instead of the student's.
        evaluation: JSON file of sfr_evaluate.

    Raises:
        UserError: a file is damaged, or ``evaluation`` is not what it should be.
    """
    trainer = model_folder.name.partition("__")[0]
    used = {fold: _training_settings(model_folder, fold) for fold in folds}
    first = used[folds[0]]
    labels = dataset.dataset_json["labels"]
    measured = [read_evaluation(evaluation)] if evaluation is not None else []
    is_validated = checkpoint == FINAL_CHECKPOINT and not use_teacher  # nnU-Net validates the student of that one
    validated = read_validation(model_folder, folds, labels) if is_validated else None
    manager = dataset.configuration_manager
    return ModelFacts(
        dataset_name=dataset.paths.dataset_name,
        channels=channel_names(dataset.dataset_json),
        labels=labels,
        spacing=manager.spacing,
        file_ending=dataset.dataset_json["file_ending"],
        plans=dataset.paths.plans_name,
        configuration=dataset.paths.configuration,
        network=manager.network_arch_class_name.rsplit(".", 1)[-1],
        folds=folds,
        trainer=trainer,
        weights=_weights(checkpoint, use_teacher=use_teacher),
        labelled=_labelled(dataset, used),
        unlabelled=_unlabelled(dataset, trainer, first),
        pseudo_labels=_pseudo_labels(dataset, trainer, folds[0], first),
        settings={name: value for name, value in first.items() if name in _SETTINGS},
        trained_with=_versions(first),
        metrics=[*measured, *([validated] if validated is not None else [])],
    )


_SETTINGS = {"epochs", *SFRConfiguration.__dataclass_fields__} - {"derived_from"}


def _training_settings(model_folder: Path, fold: Fold) -> dict[str, Any]:
    """What our trainers leave beside their checkpoints; empty for a model of nnU-Net's own."""
    file = model_folder / fold_name(fold) / TRAINING_SETTINGS
    return read_json(file, _REMEDY) if file.is_file() else {}


def _weights(checkpoint: str, *, use_teacher: bool) -> str:
    if checkpoint == TEACHER_CHECKPOINT:
        return "teacher"
    weights = "teacher" if use_teacher else "student"
    return weights if checkpoint == FINAL_CHECKPOINT else f"{weights} of {Path(checkpoint).name}"


def _labelled(dataset: SFRDataset, used: Mapping[Fold, Mapping[str, Any]]) -> list[str] | None:
    cases: set[str] = set()
    for fold, settings in used.items():
        recorded = settings.get("trained_on", {}).get("labelled")
        try:
            cases.update(recorded if recorded is not None else dataset.split(fold)[0])
        except UserError:  # preprocessed cases and splits need not be here any more
            return None
    return sorted(cases)


def _unlabelled(dataset: SFRDataset, trainer: str, settings: Mapping[str, Any]) -> list[str] | None:
    recorded: list[str] | None = settings.get("trained_on", {}).get("unlabelled")
    if recorded is not None:
        return recorded
    if find_trainer(trainer) is None:
        return []  # nnU-Net's own trainers know no pool
    folder = dataset.paths.unlabelled
    return sorted(UnlabelledDataset(folder).identifiers) if folder.is_dir() else None


def _pseudo_labels(dataset: SFRDataset, trainer: str, fold: Fold, settings: Mapping[str, Any]) -> Provenance | None:
    """As recorded by the training; for models of version 0.1, as the store of their round has it now."""
    if "trained_on" in settings:
        made_by = settings["trained_on"].get("pseudo_labels_made_by")
        return None if made_by is None else Provenance.from_json(made_by)
    trainer_class: Any = find_trainer(trainer)
    if trainer_class is None or not trainer_class.uses_pseudo_labels:
        return None
    round_index = getattr(trainer_class, "round_index", 0)
    round_index = round_index if isinstance(round_index, int) else 0
    manifest = dataset.paths.pseudo_labels(fold, round_index=round_index) / MANIFEST
    if not manifest.is_file():
        return None
    return Provenance.from_json(read_json(manifest, _REMEDY, {"made_by": {"source": str}})["made_by"])


def _versions(settings: Mapping[str, Any]) -> dict[str, str]:
    keys = {"nnunet_sfr": "nnunet_sfr_version", "nnunetv2": "nnunetv2_version", "torch": "torch_version"}
    return {name: str(settings[key]) for name, key in keys.items() if key in settings}
