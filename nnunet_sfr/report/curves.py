"""The curves of every training: SAM's fine-tuning in each round, and every model of nnU-Net's of this plan and fold."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_sfr.command_lines import CommandLines, shown
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import device_for_nnunet
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_CHECKPOINT, FINE_TUNING_LOG, LATEST_CHECKPOINT, Fold
from nnunet_sfr.report.contents import Curve, CurvePanel, Training

_SHARED_PANELS = {
    "loss": {"train_losses": "training", "val_losses": "validation"},
    "pseudo Dice": {"mean_fg_dice": "mean over classes", "ema_fg_dice": "moving average"},
    "learning rate": {"lrs": "learning rate"},
}
"""nnU-Net's own keys that are shown: title of the panel, and name of the curve by key."""
_NOT_SHOWN = ("dice_per_class_or_region", "epoch_start_timestamps", "epoch_end_timestamps")
"""Further keys of nnU-Net's; all others are terms of our trainers."""
_FINE_TUNING_PANELS = {"loss": "loss", "Dice on validation cases": "validation_dice"}
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError, pickle.UnpicklingError)
"""What torch raises for files that are no checkpoints."""


def read_trainings(dataset: SFRDataset, fold: Fold, trainers: Sequence[str] | None) -> tuple[list[Training], list[str]]:
    """The curves, and what could not be read or is not there, one sentence each.

    Args:
        dataset: planned.
        fold: of the models.
        trainers: names as ``nnUNetv2_train -tr`` has them; None for all.

    Raises:
        UserError: one of ``trainers`` has no model.
    """
    problems: list[str] = []
    models = _find_models(dataset, fold)
    unknown = sorted(set(trainers or ()) - set(models))
    if unknown:
        raise UserError(
            f"{dataset.paths.results}: {unknown[0]} has no model of plans {dataset.paths.plans_name}, configuration "
            f"{dataset.paths.configuration} and fold {fold}; choose -tr among {', '.join(models) or 'none'}"
        )
    trainings = _fine_tunings(dataset, fold, problems)
    for name, checkpoint in models.items():
        if trainers is None or name in trainers:
            training = _training(name, checkpoint, problems)
            trainings += [training] if training.panels else []
    if not models:
        train = CommandLines.of(dataset.paths, fold, device_for_nnunet()).train("nnUNetTrainerSFR_MT")
        problems.append(f"there is no model of this plan and fold yet; run {shown(train)}")
    return trainings, problems


def _find_models(dataset: SFRDataset, fold: Fold) -> dict[str, Path]:
    """The newest checkpoint by trainer, in the order in which the trainings ended."""
    found = {}
    ends = (FINAL_CHECKPOINT, LATEST_CHECKPOINT)
    for trainer in dataset.paths.trainers(fold, ends):
        files = [dataset.paths.training(trainer, fold) / name for name in ends]
        found[trainer] = max((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime)
    return dict(sorted(found.items(), key=lambda model: (model[1].stat().st_mtime, model[0])))


def _fine_tunings(dataset: SFRDataset, fold: Fold, problems: list[str]) -> list[Training]:
    folder = dataset.paths.sam_stage(fold).parent
    rounds = sorted(
        (int(file.parent.name.removeprefix("round_")), file)
        for file in folder.glob(f"round_*/{FINE_TUNING_LOG}")
        if file.parent.name.removeprefix("round_").isdecimal()
    )
    trainings = []
    for round_index, file in rounds:
        again = f"run {shown(CommandLines.of(dataset.paths, fold).fine_tune(round_index))} --overwrite"
        try:
            log = json.loads(file.read_text())
            panels = [
                CurvePanel(title, (_curve(key, [(entry["iteration"], entry[key]) for entry in log]),))
                for title, key in _FINE_TUNING_PANELS.items()
            ]
        except _UNREADABLE as error:
            problems.append(f"{file}: is not a log of fine-tuning ({_reason(error)}); {again}")
            continue
        trainings.append(Training(f"SAM, round {round_index}", "iteration", panels))
    if not rounds:
        problems.append(f"there are no curves of SAM; run {shown(CommandLines.of(dataset.paths, fold).fine_tune())}")
    return trainings


def _training(name: str, checkpoint: Path, problems: list[str]) -> Training:
    try:
        # mapped into memory: of a checkpoint of several hundred MB, the log alone is read
        content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        log: Mapping[str, Any] = content["logging"]
        panels = _panels(log)
    except _UNREADABLE as error:
        problems.append(f"{checkpoint}: its log cannot be read ({_reason(error)}); train this model again")
        panels = []
    ended = name if checkpoint.name == FINAL_CHECKPOINT else f"{name} (not complete)"
    return Training(ended, "epoch", panels)


def _panels(log: Mapping[str, Any]) -> list[CurvePanel]:
    panels = [
        CurvePanel(title, [_curve(name, enumerate(log[key])) for key, name in keys.items() if key in log])
        for title, keys in _SHARED_PANELS.items()
    ]
    known = {*_NOT_SHOWN, *(key for keys in _SHARED_PANELS.values() for key in keys)}
    panels += [
        CurvePanel(term.replace("_", " "), [_curve(term.replace("_", " "), enumerate(values))])
        for term, values in log.items()
        if term not in known
    ]
    return [panel for panel in panels if any(curve.y for curve in panel.curves)]


def _curve(name: str, points: Iterable[tuple[Any, Any]]) -> Curve:
    """Points that are numbers; a training that diverged has others."""
    finite = [(float(x), float(y)) for x, y in points if y is not None and math.isfinite(y)]
    return Curve(name.replace("_", " "), [x for x, _ in finite], [y for _, y in finite])


def _reason(error: BaseException) -> str:
    text = str(error).split(". ")[0]
    return " ".join(text.split())[:150] or type(error).__name__
