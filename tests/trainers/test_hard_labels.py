"""Label maps and targets out of logits: what nnU-Net would write, in the form in which nnU-Net's loss takes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_sfr.trainers.hard_labels import hard_targets, predicted_labels

PLAIN = LabelManager({"background": 0, "liver": 1, "spleen": 2}, None)
# The values do not follow the order of the channels, and the smaller value is written last.
REGIONS = LabelManager({"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": 4}, [2, 4, 1])
REGIONS_WITH_IGNORE = LabelManager({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])

MANAGERS = pytest.mark.parametrize(
    "labels", [PLAIN, REGIONS, REGIONS_WITH_IGNORE], ids=["labels", "regions", "regions_with_ignore"]
)


def some_logits(labels: LabelManager, *spatial: int) -> torch.Tensor:
    """Two items whose first voxel is undecided."""
    logits = torch.randn(2, labels.num_segmentation_heads, *spatial, generator=torch.Generator().manual_seed(0))
    logits.flatten(2)[..., 0] = 0.0
    return logits


@MANAGERS
@pytest.mark.parametrize("spatial", [(6, 5), (4, 3, 5)], ids=["2d", "3d"])
def test_labels_are_those_that_nnunet_writes(labels: LabelManager, spatial: tuple[int, ...]) -> None:
    logits = some_logits(labels, *spatial)
    ours = predicted_labels(logits, labels)
    assert ours.shape == (2, *spatial)
    assert ours.dtype == torch.int64
    assert set(ours.unique().tolist()) == set(labels.all_labels), "every label must occur to be compared"
    for item, expected in zip(ours, logits, strict=True):
        probabilities = labels.apply_inference_nonlin(expected)
        assert torch.equal(item, labels.convert_probabilities_to_segmentation(probabilities).long())


def test_a_later_region_overwrites_an_earlier_one() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
    assert predicted_labels(logits[..., None, None], REGIONS).flatten().tolist() == [1, 4, 2, 0]


def test_the_target_of_labels_is_a_label_map() -> None:
    logits = some_logits(PLAIN, 6, 5)
    target = hard_targets(logits, PLAIN)
    assert target.shape == (2, 1, 6, 5)
    assert torch.equal(target[:, 0], predicted_labels(logits, PLAIN))


@pytest.mark.parametrize("labels", [REGIONS, REGIONS_WITH_IGNORE], ids=["regions", "regions_with_ignore"])
def test_the_target_of_regions_has_their_channels_and_ignores_nothing(labels: LabelManager) -> None:
    logits = some_logits(labels, 4, 3, 5)
    target = hard_targets(logits, labels)
    channels = logits.shape[1]
    assert torch.equal(target[:, :channels], (torch.sigmoid(logits) > 0.5).float())
    assert target.shape[1] == channels + labels.has_ignore_label
    assert not target[:, channels:].any()


@pytest.mark.parametrize("labels", [REGIONS, REGIONS_WITH_IGNORE], ids=["regions", "regions_with_ignore"])
def test_nnunets_loss_of_regions_takes_the_target(labels: LabelManager) -> None:
    """Sure logits agree with their own decision in every voxel: Dice 1, cross-entropy 0. Others do not."""
    options: dict[str, Any] = {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}
    loss = DC_and_BCE_loss(
        {}, options, use_ignore_label=labels.has_ignore_label, dice_class=MemoryEfficientSoftDiceLoss
    )
    logits = 100 * some_logits(labels, 4, 3, 5).sign()
    logits[logits == 0] = -100.0
    target = hard_targets(logits, labels)
    assert loss(logits, target).item() == pytest.approx(-1.0)
    assert loss(-logits, target).item() > 50.0


def test_no_gradient_flows_into_a_decision() -> None:
    for labels in (PLAIN, REGIONS, REGIONS_WITH_IGNORE):
        logits = some_logits(labels, 6, 5).requires_grad_()
        assert not hard_targets(logits, labels).requires_grad
        assert not predicted_labels(logits, labels).requires_grad
