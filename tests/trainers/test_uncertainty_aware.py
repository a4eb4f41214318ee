"""UA-MT: entropy and selection by hand, the loss written out, and dropout that leaves the network as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers.feature_dropout import FeatureDropout
from nnunet_sfr.trainers.methods import UAMTSettings
from nnunet_sfr.trainers.schedules import consistency_weight, rising_threshold
from nnunet_sfr.trainers.uncertainty_aware import predictive_entropy
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import weights
from tests.tiny_project import change_settings


def test_entropy_of_the_mean_by_hand() -> None:
    """Means (0.7, 0.3) and (0.55, 0.45) of two passes each."""
    predictions = ([[0.9, 1.0], [0.1, 1e-9]], [[0.5, 0.1], [0.5, 0.9]])
    passes = iter([torch.tensor(values).reshape(1, 2, 2, 1).log() for values in predictions])
    entropy = predictive_entropy(lambda: next(passes), 2)
    expected = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2) for p in (0.7, 0.55)]
    assert entropy.shape == (1, 1, 2, 1)
    assert entropy.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_entropy_of_regions_is_one_for_each() -> None:
    logits = torch.tensor([math.log(0.8 / 0.2), 0.0]).reshape(1, 2, 1, 1)
    entropy = predictive_entropy(lambda: logits, 3, regions=True)
    expected = [-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2), 1.0]
    assert entropy.flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 0.75 + 0.25 * math.exp(-5)), (3000, 0.75 + 0.25 * math.exp(-1.25)), (6000, 1.0)]
)
def test_threshold_of_the_published_code(iteration: int, expected: float) -> None:
    """(0.75 + 0.25 ramp(t, T)) log C, here in units of log C."""
    settings = UAMTSettings()
    threshold = rising_threshold(
        iteration, total_iterations=6000, start=settings.threshold_start, rise=settings.threshold_rise
    )
    assert threshold == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passes": 0}, "passes must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"threshold_start": 2.0}, "threshold_start must lie between 0 and 1, got 2.0"),
    ],
    ids=["passes", "dropout", "threshold"],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UAMTSettings(**change)


# --- dropout ---


class SmallNet(nn.Module):
    """Two stages each way; the second of the encoder and the last of the decoder hand on what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.stages = nn.Sequential(nn.Identity(), nn.Identity())
        self.decoder = nn.Module()
        self.decoder.stages = nn.ModuleList([nn.Identity()])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        stages: Any = self.decoder.stages
        encoder: Any = self.encoder
        result: torch.Tensor = stages[0](encoder.stages(values))
        return result


def test_whole_maps_are_dropped_in_training_and_on_request() -> None:
    torch.manual_seed(0)
    network = SmallNet()
    dropout = FeatureDropout(network, 0.5)
    values = torch.ones(1, 400, 2, 2, 2)
    trained = network.train()(values)
    assert (trained == trained[:, :, :1, :1, :1]).all(), "a map is dropped as a whole"
    assert set(trained.unique().tolist()) == {0.0, 4.0}, "twice, each time the others are doubled"
    assert (trained > 0).float().mean().item() == pytest.approx(0.25, abs=0.06)
    assert torch.equal(network.eval()(values), values)
    with dropout.switched_on():
        assert set(network(values).unique().tolist()) == {0.0, 4.0}
        assert set(network(values[:, :, 0]).unique().tolist()) == {0.0, 4.0}, "in 2D too"
    assert torch.equal(network(values), values)


def test_a_network_without_stages_is_refused() -> None:
    with pytest.raises(UserError, match="dropout needs a network with an encoder and a decoder of stages, Linear has"):
        FeatureDropout(nn.Linear(1, 1), 0.5)


def test_student_and_teacher_have_dropout_and_the_weights_their_names(make_trainer: TrainerFactory) -> None:
    trainer, plain = make_trainer("nnUNetTrainer_UAMT"), make_trainer("nnUNetTrainer_MT")
    for each in (trainer, plain):
        each.initialize()
    assert trainer.student.state_dict().keys() == plain.student.state_dict().keys()
    images = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    teacher = [trainer.teacher_logits(images, add_noise=False) for _ in range(2)]
    assert torch.equal(*teacher)
    dropped = [trainer.teacher_logits(images, add_noise=False, dropout=True) for _ in range(2)]
    assert not torch.equal(*dropped)
    assert not torch.equal(*[trainer.network.train()(images)[0] for _ in range(2)])
    assert torch.equal(*[trainer.network.eval()(images)[0] for _ in range(2)])
    with pytest.raises(RuntimeError, match="the teacher has no dropout"):
        plain.teacher_logits(images, dropout=True)


# --- the loss ---


def test_one_step_descends_the_stated_loss(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """Without noise and dropout, where all passes are alike: L_sup + w_p L_pl + w(t) sum m (p - q)^2 / (C sum m)."""
    change_settings(
        project,
        {
            "retraining": {
                "pseudo_label_weight": 0.5,
                "consistency_weight": 30.0,
                "teacher_noise_std": 0.0,
                "uamt": {"dropout": 0.0, "passes": 2},
            }
        },
    )
    trainer = make_trainer("nnUNetTrainerSFR_UAMT")
    trainer.on_train_start()
    trainer.iteration = 2
    batch = next(trainer.dataloader_train)
    images, unlabelled = batch["labelled"]["data"], batch["unlabelled"]["data"]
    with torch.no_grad():  # logits of this spread are certain of about half of the voxels
        trainer.teacher.decoder.seg_layers[-1].weight.div_(trainer.teacher(unlabelled).std())
    outputs = trainer.network(unlabelled)
    with torch.no_grad():
        q = torch.softmax(trainer.teacher(unlabelled), dim=1)
    entropy = -(q * torch.log(q + 1e-6)).sum(dim=1, keepdim=True)
    mask = (entropy < (0.75 + 0.25 * math.exp(-1.25)) * math.log(2)).float()
    assert 0.05 < mask.mean() < 0.95
    difference = (torch.softmax(outputs[0], dim=1) - q) ** 2
    consistency = (mask * difference).sum() / (2 * mask.sum())
    supervised = trainer.loss(trainer.network(images), batch["labelled"]["target"])
    pseudo = trainer.loss(outputs, batch["unlabelled"]["target"])
    weight = consistency_weight(2, total_iterations=4, maximum=30.0, ramp_up_fraction=1.0)
    total = supervised + 0.5 * pseudo + weight * consistency
    expected = torch.autograd.grad(total, list(trainer.network.parameters()), allow_unused=True)
    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in trainer.network.parameters())
    result = trainer.train_step(batch)
    assert result["selected_voxels"] == pytest.approx(mask.mean().item())
    assert result["loss"] == pytest.approx(total.item(), rel=1e-4)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is not None and theirs.abs().max() > 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_uncertainty_is_asked_of_as_many_passes_as_are_set(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_settings(project, {"retraining": {"uamt": {"passes": 3}}})
    trainer = make_trainer("nnUNetTrainer_UAMT")
    trainer.on_train_start()
    asked: list[dict[str, Any]] = []
    teacher_logits = trainer.teacher_logits

    def spy(images: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append(options)
        logits: torch.Tensor = teacher_logits(images, **options)
        return logits

    monkeypatch.setattr(trainer, "teacher_logits", spy)
    trainer.train_step(next(trainer.dataloader_train))
    assert asked == [{"dropout": True}] * 3 + [{}]
    assert weights(trainer.student).isfinite().all()
