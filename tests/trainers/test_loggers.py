"""Our losses and weights reach every logger that nnU-Net has on, and TensorBoard where it is asked for."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.trainers.tensorboard import TENSORBOARD_VARIABLE, TensorBoardLogger
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import resume, train_until_killed
from tests.tiny_project import change_settings

OURS = {"supervised_loss", "pseudo_label_loss", "consistency_loss", "consistency_weight"}
OUTPUTS = [
    {
        "loss": 1.0,
        "supervised_loss": 0.5,
        "pseudo_label_loss": 0.25,
        "consistency_loss": 2.0,
        "consistency_weight": 0.1,
    },
    {
        "loss": 3.0,
        "supervised_loss": 1.5,
        "pseudo_label_loss": 0.75,
        "consistency_loss": 4.0,
        "consistency_weight": 0.3,
    },
]


class FakeRun:
    """What nnU-Net uses of a run of Weights & Biases."""

    step = 0

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int]] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))


class FakeWriter:
    """What we use of TensorBoard's SummaryWriter."""

    made: ClassVar[list[FakeWriter]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.flushed = 0
        FakeWriter.made.append(self)

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.scalars.append((key, value, step))

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> type[FakeWriter]:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    FakeWriter.made = []
    return FakeWriter


def test_weights_and_biases_gets_our_terms(make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    monkeypatch.setattr(
        "nnunetv2.training.logging.nnunet_logger.wandb", SimpleNamespace(init=lambda **options: run), raising=True
    )
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    trainer = make_trainer()
    trainer.initialize()
    trainer.on_train_epoch_end(OUTPUTS)
    logged = {key: (value, step) for values, step in run.logged for key, value in values.items()}
    assert logged.keys() >= OURS
    assert logged["pseudo_label_loss"] == (0.5, 0)
    assert logged["consistency_weight"] == (pytest.approx(0.2), 0)


def test_tensorboard_gets_what_nnunet_and_we_log(
    make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch, tensorboard: type[FakeWriter]
) -> None:
    monkeypatch.setenv(TENSORBOARD_VARIABLE, "1")
    trainer = make_trainer()
    trainer.initialize()
    assert tensorboard.made == [], "nothing is written before there is something to write"
    trainer.logger.log("lrs", 0.01, 0)
    trainer.on_train_epoch_end(OUTPUTS)
    (writer,) = tensorboard.made
    assert writer.folder == str(Path(trainer.output_folder, "tensorboard"))
    scalars = {key: value for key, value, _ in writer.scalars}
    assert scalars.keys() == {"lrs", "train_losses", *OURS}
    assert scalars["supervised_loss"] == 1.0
    trainer.logger.log("epoch_end_timestamps", 12345.0, 0)
    assert writer.flushed == 1
    assert "epoch_end_timestamps" not in {key for key, _, _ in writer.scalars}
    trainer.logger.log_summary("final_val/foreground_dice", 0.9)
    assert writer.scalars[-1] == ("final_val/foreground_dice", 0.9, 0)


def test_a_resumed_training_hides_what_it_computes_again(tmp_path: Path, tensorboard: type[FakeWriter]) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log("lrs", 0.1, 7)
    assert tensorboard.made[0].purge_step == 7


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    # of w_p = 0.5, at three eighths of the fall on average over the two steps of the second epoch
    [(1.0, 0.0, [math.nan, 0.5 * 3 / 8]), (0.0, 1.0, None), (0.0, 0.0, [0.5 * 7 / 8, 0.5 * 3 / 8])],
    ids=["begins to fall", "falls no more", "falls"],
)
def test_a_resumed_training_logs_the_terms_of_its_settings(
    before: float, after: float, expected: list[float] | None, make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    change_settings(project, {"retraining": {"pseudo_weighting": {"final_share": before}}})
    train_until_killed(make_trainer(), epoch=1)
    change_settings(project, {"retraining": {"pseudo_weighting": {"final_share": after}}})
    trainer = resume(make_trainer)
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    assert log.get("pseudo_label_weight") == (None if expected is None else pytest.approx(expected, nan_ok=True))
    assert {len(values) for values in log.values()} == {2}, "nnU-Net draws as many epochs as the shortest list has"


@pytest.mark.parametrize("value", [None, "0", "False"])
def test_nothing_by_default(
    value: str | None, make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch, tensorboard: type[FakeWriter]
) -> None:
    monkeypatch.delenv(TENSORBOARD_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(TENSORBOARD_VARIABLE, value)
    trainer = make_trainer()
    trainer.initialize()
    assert trainer.logger.loggers == []


def test_what_cannot_be_had_is_said(make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TENSORBOARD_VARIABLE, "yes")
    with pytest.raises(SystemExit, match=f"error: the variable {TENSORBOARD_VARIABLE} is 'yes'; set it to 0 or 1"):
        make_trainer().initialize()
    monkeypatch.setenv(TENSORBOARD_VARIABLE, "1")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit, match="asks for TensorBoard, which is not installed; run pip install tensorboard"):
        make_trainer().initialize()
