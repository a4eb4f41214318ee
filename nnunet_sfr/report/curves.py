"""The curves of every training: SAM's fine-tuning in each round, and every model of nnU-Net's of this plan and fold."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import device_for_nnunet
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_CHECKPOINT, FINE_TUNING_LOG, LATEST_CHECKPOINT, Fold
from nnunet_sfr.report.contents import Curve, CurvePanel, Training
from nnunet_sfr.trainers.methods import DEFAULT_TRAINER

_LOSS = {"train_losses": "training", "val_losses": "validation"}
_DICE = {"mean_fg_dice": "mean over classes", "ema_fg_dice": "moving average"}
_RATE = {"lrs": "learning rate"}
"""nnU-Net's own keys that are shown, with the name of each curve."""
_NOT_SHOWN = ("dice_per_class_or_region", "epoch_start_timestamps", "epoch_end_timestamps")
"""Further keys of nnU-Net's; all others are terms of our trainers."""
NOTHING_HELD_OUT = "training cases (fold all holds none out)"
HELD_OUT = "validation cases"
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError, pickle.UnpicklingError),
    ImportError,  # a checkpoint with an object of a package that is not installed here
)
"""What torch raises for files that are no checkpoints, or that cannot be read."""


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
            training = _training(name, checkpoint, fold, problems)
            trainings += [training] if training.panels else []
    if not models:
        train = CommandLines.of(dataset.paths, fold, device_for_nnunet()).train(DEFAULT_TRAINER)
        problems.append(f"there is no model of this plan and fold yet; run {shell_text(train)}")
    return trainings, problems


def _measured_on(fold: Fold) -> str:
    """On which cases a training measures the Dice and the loss that it calls validation."""
    return NOTHING_HELD_OUT if fold == "all" else HELD_OUT


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
        again = f"run {shell_text(CommandLines.of(dataset.paths, fold).fine_tune(round_index))} --overwrite"
        try:
            log = json.loads(file.read_text(encoding="utf-8"))
            panels = [
                CurvePanel(title, (_curve(key, [(entry["iteration"], entry[key]) for entry in log]),))
                for title, key in (("loss", "loss"), (f"Dice on {_measured_on(fold)}", "validation_dice"))
            ]
        except _UNREADABLE as error:
            problems.append(f"{file}: is not a log of fine-tuning ({_reason(error)}); {again}")
            continue
        trainings.append(Training(f"SAM, round {round_index}", "iteration", panels))
    if not rounds:
        problems.append(
            f"there are no curves of SAM; run {shell_text(CommandLines.of(dataset.paths, fold).fine_tune())}"
        )
    return trainings


def _training(name: str, checkpoint: Path, fold: Fold, problems: list[str]) -> Training:
    try:
        # mapped into memory: of a checkpoint of several hundred MB, the log alone is read
        content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        log: Mapping[str, Any] = content["logging"]
        panels = _panels(log, fold)
    except _UNREADABLE as error:
        remedy = "install what it needs" if isinstance(error, ImportError) else "train this model again"
        problems.append(f"{checkpoint}: its log cannot be read ({_reason(error)}); {remedy}")
        panels = []
    ended = name if checkpoint.name == FINAL_CHECKPOINT else f"{name} (not complete)"
    return Training(ended, "epoch", panels)


def _panels(log: Mapping[str, Any], fold: Fold) -> list[CurvePanel]:
    loss = {**_LOSS, "val_losses": f"on {NOTHING_HELD_OUT}, without augmentation"} if fold == "all" else _LOSS
    own = {"loss": loss, f"pseudo Dice on {_measured_on(fold)}": _DICE, "learning rate": _RATE}
    panels = [
        CurvePanel(title, [_curve(name, enumerate(log[key])) for key, name in keys.items() if key in log])
        for title, keys in own.items()
    ]
    known = {*_NOT_SHOWN, *_LOSS, *_DICE, *_RATE}
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
