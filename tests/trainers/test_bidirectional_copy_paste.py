"""BCP: mask, pasting and components by hand, the losses written out, the pre-training and where it ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.trainers import bidirectional_copy_paste as bcp
from nnunet_sfr.trainers.bidirectional_copy_paste import draw_box_mask, keep_largest_components, paste
from nnunet_sfr.trainers.methods import BCPSettings
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import weights
from tests.tiny_project import change_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("shape", "sides"), [((9, 7, 12), (6, 4, 8)), ((112, 80), (74, 53)), ((1, 8, 8), (1, 5, 5))], ids=str
)
def test_the_box_has_two_thirds_of_each_axis(shape: tuple[int, ...], sides: tuple[int, ...]) -> None:
    np.random.seed(0)
    starts = set()
    for _ in range(50):
        mask = draw_box_mask(shape, 2 / 3, CPU)
        assert mask.shape == (1, 1, *shape)
        inside = (mask[0, 0] == 0).nonzero()
        low, high = inside.amin(dim=0), inside.amax(dim=0)
        assert (high - low + 1).tolist() == list(sides)
        assert len(inside) == math.prod(sides)
        assert mask.sum() == math.prod(shape) - math.prod(sides)
        starts.add(tuple(low.tolist()))
    for axis, (length, side) in enumerate(zip(shape, sides, strict=True)):
        if length - side < 5:
            assert {start[axis] for start in starts} == set(range(length - side + 1)), "any place that fits"


def test_pasting_by_hand() -> None:
    outside, inside = torch.arange(8.0).reshape(1, 1, 2, 4), -torch.arange(8.0).reshape(1, 1, 2, 4)
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0]]).reshape(1, 1, 2, 4)
    assert paste(outside, inside, mask)[0, 0].tolist() == [[0, 1, -2, -3], [4, 5, 6, -7]]
    coarse = paste(torch.full((1, 1, 1, 2), 5.0), torch.full((1, 1, 1, 2), 6.0), mask)
    assert coarse[0, 0].tolist() == [[5, 6]], "as nnU-Net takes the nearest voxel of a label map"


def test_largest_components_by_hand() -> None:
    labels = torch.tensor([[1.0, 1, 0, 1, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0, 0, 0]]).reshape(2, 1, 8)
    assert keep_largest_components(labels)[:, 0].tolist() == [[1, 1, 0, 0, 0, 0, 2, 2], [0] * 8]
    regions = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]]).reshape(1, 2, 4)
    assert keep_largest_components(regions)[0].tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    diagonal = torch.eye(3).reshape(1, 1, 3, 3)
    torch.testing.assert_close(keep_largest_components(diagonal), diagonal)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio must lie above 0 and below 1, got 1.0"),
        ({"unlabelled_weight": -1.0}, "unlabelled_weight must be at least 0, got -1.0"),
        ({"pretraining_share": 1.0}, r"pretraining_share must lie in \[0, 1\), got 1.0"),
    ],
    ids=["mask", "weight", "share"],
)
def test_settings_that_make_no_sense(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BCPSettings(**change)  # type: ignore[arg-type]


# --- what a trainer makes of them ---


def masked_loss(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice of the foreground over the voxels of a mask, written out for two classes."""
    p = torch.softmax(logits, dim=1)[:, 1:]
    axes = tuple(range(2, logits.ndim))
    chosen = mask.expand_as(target)
    right = torch.where(target == 1, p, 1 - p)
    entropy = (-torch.log(right) * chosen).sum() / chosen.sum()
    dice = (2 * (p * target * chosen).sum(axes) + 1e-5) / ((p * chosen).sum(axes) + (target * chosen).sum(axes) + 1e-5)
    return entropy - dice.mean()


def at_all_resolutions(trainer: Any, outputs: list[torch.Tensor], targets: Any, mask: torch.Tensor) -> torch.Tensor:
    factors = trainer.loss.weight_factors
    parts = [
        factor * masked_loss(logits, target, F.interpolate(mask, target.shape[2:], mode="area"))
        for factor, logits, target in zip(factors, outputs, targets, strict=True)
        if factor
    ]
    return torch.stack(parts).sum()


def prepared(trainer: Any, monkeypatch: pytest.MonkeyPatch, *, iteration: int) -> tuple[Any, torch.Tensor]:
    """A started trainer with a teacher of its own, Dice patch by patch, and a mask that is known."""
    trainer.on_train_start()
    trainer.iteration = iteration
    trainer.loss.loss.dc.batch_dice = False
    nn.utils.vector_to_parameters(weights(trainer.teacher) + 0.05, trainer.teacher.parameters())
    mask = torch.ones(1, 1, *trainer.configuration_manager.patch_size)
    mask[..., 1:6, 2:7, 2:6] = 0
    monkeypatch.setattr(bcp, "draw_box_mask", lambda *_: mask)
    return next(trainer.dataloader_train), mask


def gradients_of_a_step(trainer: Any, batch: Any) -> tuple[dict[str, Any], list[torch.Tensor | None]]:
    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in trainer.network.parameters())
    return trainer.train_step(batch), gradients


def require_equal(ours: list[torch.Tensor | None], theirs: tuple[torch.Tensor | None, ...]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        if their is not None and their.abs().max() > 0:
            torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["nnUNetTrainer_BCP", "nnUNetTrainerSFR_BCP"])
def test_one_step_descends_the_stated_loss(
    name: str, make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L_in + L_out (+ w_p L_pl) with alpha = 0.3."""
    change_settings(project, {"retraining": {"pseudo_label_weight": 0.5, "bcp": {"unlabelled_weight": 0.3}}})
    trainer = make_trainer(name)
    batch, mask = prepared(trainer, monkeypatch, iteration=2)
    x, u = batch["labelled"]["data"], batch["unlabelled"]["data"]
    y = batch["labelled"]["target"]
    with torch.no_grad():
        z_full = keep_largest_components(trainer.teacher(u).argmax(dim=1, keepdim=True).float())
    z = [F.interpolate(z_full, target.shape[2:], mode="nearest-exact") for target in y]
    inward = trainer.network(x * mask + u * (1 - mask))
    labelled = at_all_resolutions(trainer, inward, y, mask)
    taught = at_all_resolutions(trainer, inward, z, 1 - mask)
    swapped = [target.flip(0) for target in y]
    outward = trainer.network(u * mask + x.flip(0) * (1 - mask))
    labelled = labelled + at_all_resolutions(trainer, outward, swapped, 1 - mask)
    taught = taught + at_all_resolutions(trainer, outward, z, mask)
    total = labelled + 0.3 * taught
    if "SFR" in name:
        total = total + 0.5 * trainer.loss(trainer.network(u), batch["unlabelled"]["target"])
    expected = torch.autograd.grad(total, list(trainer.network.parameters()), allow_unused=True)
    result, gradients = gradients_of_a_step(trainer, batch)
    assert result["supervised_loss"] == pytest.approx(labelled.item(), rel=1e-4)
    assert result["teacher_label_loss"] == pytest.approx(taught.item(), rel=1e-4)
    assert result["loss"] == pytest.approx(total.item(), rel=1e-4)
    require_equal(gradients, expected)


def test_pretraining_pastes_labelled_patches(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four iterations; then the teacher begins as the student."""
    change_settings(project, {"retraining": {"bcp": {"pretraining_share": 0.25}}})
    trainer = make_trainer("nnUNetTrainer_BCP")
    batch, mask = prepared(trainer, monkeypatch, iteration=0)
    assert trainer.pretraining_iterations == 1
    x, y = batch["labelled"]["data"], batch["labelled"]["target"]
    coarse = [F.interpolate(mask, target.shape[2:], mode="nearest-exact") for target in y]
    mixed = [target * part + target.flip(0) * (1 - part) for target, part in zip(y, coarse, strict=True)]
    loss = trainer.loss(trainer.network(x * mask + x.flip(0) * (1 - mask)), mixed)
    expected = torch.autograd.grad(loss, list(trainer.network.parameters()), allow_unused=True)
    step = trainer._optimizer_step
    result, gradients = gradients_of_a_step(trainer, batch)
    require_equal(gradients, expected)
    assert result["supervised_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert result["teacher_label_loss"] == 0

    trainer._optimizer_step = step
    nn.utils.vector_to_parameters(weights(trainer.teacher) + 1.0, trainer.teacher.parameters())
    student = weights(trainer.student)
    seen: list[torch.Tensor] = []

    def targets(images: torch.Tensor, like: Any) -> Any:
        seen.append(weights(trainer.teacher))
        return like

    monkeypatch.setattr(trainer, "_teacher_targets", targets)
    trainer.train_step(batch)
    assert torch.equal(seen[0], student)


def test_components_are_kept_on_request(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_settings(project, {"retraining": {"bcp": {"largest_component": False}}})
    trainer = make_trainer("nnUNetTrainer_BCP")
    trainer.on_train_start()
    logits = torch.zeros(1, 2, 4, 4, 4)
    logits[0, 1, 0, 0, :2] = 1
    logits[0, 1, 3, 3, 3] = 1
    monkeypatch.setattr(trainer, "teacher_logits", lambda images, add_noise: logits)
    like = [torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 2, 2, 2)]
    fine, coarse = trainer._teacher_targets(torch.zeros(1, 1, 4, 4, 4), like)
    assert fine.sum() == 3
    assert coarse.shape == like[1].shape


def test_a_batch_of_one_is_its_own_partner(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainer_BCP")
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    single = {
        stream: {
            "data": values["data"][:1],
            "target": [target[:1] for target in values["target"]],
            "keys": values["keys"][:1],
        }
        for stream, values in batch.items()
    }
    for iteration in (0, 2):
        trainer.iteration = iteration
        assert all(np.isfinite(value) for value in trainer.train_step(single).values())
