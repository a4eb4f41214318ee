"""The curves of trainings, from SAM's logs and nnU-Net's checkpoints."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.curves import read_trainings

LOG: dict[str, Any] = {
    "train_losses": [0.5, math.nan, -0.5],
    "val_losses": [0.6, 0.1, -0.1],
    "mean_fg_dice": [0.1, 0.2, 0.3],
    "ema_fg_dice": [0.1, 0.11, 0.13],
    "dice_per_class_or_region": [[0.1], [0.2], [0.3]],
    "lrs": [0.01, 0.006, 0.003],
    "epoch_start_timestamps": [1, 2, 3],
    "epoch_end_timestamps": [2, 3, 4],
    "pseudo_label_loss": [0.7, 0.6, 0.5],
    "empty_term": [],
}


def save_log(dataset: SFRDataset, trainer: str, checkpoint: str, log: Any, fold: str = "all") -> None:
    folder = dataset.paths.results / f"{trainer}__{dataset.paths.plans_name}__3d_fullres" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"network_weights": {"weight": torch.zeros(3)}, "logging": log}, folder / checkpoint)


def test_every_term_has_a_panel(project: SFRDataset) -> None:
    save_log(project, "nnUNetTrainerSFR_MT", "checkpoint_final.pth", LOG)
    save_log(project, "nnUNetTrainerSFR_ACMT", "checkpoint_latest.pth", {"train_losses": [0.5]})
    folder = project.paths.sam_stage("all")
    folder.mkdir(parents=True)
    entries = [{"iteration": index * 10, "loss": 1 / index, "validation_dice": index / 10} for index in (1, 2)]
    (folder / "fine_tuning_log.json").write_text(json.dumps(entries))

    trainings, problems = read_trainings(project, "all", None)
    assert problems == []
    sam, *models = trainings
    assert (sam.name, sam.x_label) == ("SAM, round 0", "iteration")
    assert [(panel.title, panel.curves[0].x, panel.curves[0].y) for panel in sam.panels] == [
        ("loss", [10, 20], [1, 0.5]),
        ("Dice on training cases (fold all holds none out)", [10, 20], [0.1, 0.2]),
    ]
    by_name = {training.name: training for training in models}
    assert set(by_name) == {"nnUNetTrainerSFR_MT", "nnUNetTrainerSFR_ACMT (not complete)"}
    panels = {panel.title: panel.curves for panel in by_name["nnUNetTrainerSFR_MT"].panels}
    assert list(panels) == [
        "loss",
        "pseudo Dice on training cases (fold all holds none out)",
        "learning rate",
        "pseudo label loss",
    ]
    training, validation = panels["loss"]
    assert (training.name, training.x, training.y) == ("training", [0, 2], [0.5, -0.5])  # NaN is no point
    assert len(validation.y) == 3
    assert validation.name == "on training cases (fold all holds none out), without augmentation"
    assert panels["pseudo label loss"][0].y == [0.7, 0.6, 0.5]


def test_a_fold_holds_cases_out(project: SFRDataset) -> None:
    save_log(project, "nnUNetTrainerSFR_MT", "checkpoint_final.pth", LOG, fold="0")
    folder = project.paths.sam_stage(0)
    folder.mkdir(parents=True)
    (folder / "fine_tuning_log.json").write_text('[{"iteration": 1, "loss": 1, "validation_dice": 0.5}]')
    (sam, model), _ = read_trainings(project, 0, None)
    assert [panel.title for panel in sam.panels] == ["loss", "Dice on validation cases"]
    assert [panel.title for panel in model.panels][:2] == ["loss", "pseudo Dice on validation cases"]
    assert [curve.name for curve in model.panels[0].curves] == ["training", "validation"]


def test_chosen_trainers(project: SFRDataset) -> None:
    save_log(project, "nnUNetTrainerSFR_MT", "checkpoint_final.pth", LOG)
    save_log(project, "nnUNetTrainerSFR_ACMT", "checkpoint_final.pth", LOG)
    trainings, _ = read_trainings(project, "all", ["nnUNetTrainerSFR_ACMT"])
    assert [training.name for training in trainings] == ["nnUNetTrainerSFR_ACMT"]
    with pytest.raises(UserError, match=r"NoTrainer has no model .* choose -tr among nnUNetTrainerSFR_"):
        read_trainings(project, "all", ["NoTrainer"])


@pytest.mark.parametrize("content", [b"", b"this is no checkpoint", b"PK\x03\x04 cut off"])
def test_what_cannot_be_read_is_named(content: bytes, project: SFRDataset) -> None:
    save_log(project, "nnUNetTrainerSFR_MT", "checkpoint_final.pth", [])
    file = next(project.paths.results.rglob("checkpoint_final.pth"))
    file.write_bytes(content)
    folder = project.paths.sam_stage("all")
    folder.mkdir(parents=True)
    (folder / "fine_tuning_log.json").write_bytes(content)
    trainings, problems = read_trainings(project, "all", None)
    assert trainings == []
    assert len(problems) == 2
    assert "fine_tuning_log.json: is not a log" in problems[0]
    assert "checkpoint_final.pth: its log cannot be read" in problems[1]


def test_a_checkpoint_that_needs_a_package_is_named(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("elsewhere")
    needed = type("Needed", (), {"__module__": "elsewhere"})
    vars(package)["Needed"] = needed
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "elsewhere", package)
        save_log(project, "nnUNetTrainerSFR_MT", "checkpoint_final.pth", {"term": needed()})
    trainings, problems = read_trainings(project, "all", None)
    assert trainings == []
    assert problems[1].endswith("its log cannot be read (No module named 'elsewhere'); install what it needs")
