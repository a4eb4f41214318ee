"""The fine-tuning loss against the authors' values, and where it leaves them on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_sfr.sam_stage.losses import soft_dice_per_class, stitched_segmentation_loss

Golden = Callable[[str], Mapping[str, np.ndarray]]


def loss_of(
    logits: Tensor, target: Tensor, *, ignore: int = 255, ce: float = 0.5, dice: float = 0.5
) -> tuple[Tensor, dict[str, Tensor]]:
    return stitched_segmentation_loss(logits, target, ignore_index=ignore, cross_entropy_weight=ce, dice_weight=dice)


@pytest.mark.parametrize("case", ["dice2", "dice4"])
def test_dice_equals_the_authors_where_nothing_is_ignored(golden: Golden, case: str) -> None:
    arrays = golden("losses")
    logits = torch.from_numpy(arrays[f"{case}.logits"]).requires_grad_()
    target = torch.from_numpy(arrays[f"{case}.target"])[:, 0]
    total, terms = loss_of(logits, target, ce=0.0, dice=1.0)
    total.backward()
    per_class = soft_dice_per_class(logits.softmax(1), target, torch.ones_like(target, dtype=torch.bool))
    expected = torch.from_numpy(arrays[f"{case}.sfr_per_class"]).float()
    torch.testing.assert_close(per_class.detach(), expected, rtol=1e-5, atol=1e-5)
    assert total.item() == pytest.approx(float(arrays[f"{case}.sfr_loss"]), rel=1e-5)
    assert terms["dice"].item() == total.item()
    gradient = torch.from_numpy(arrays[f"{case}.sfr_grad_logits"])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, gradient, rtol=1e-4, atol=1e-9)


def test_fine_tuning_loss_leaves_the_authors_only_in_the_padding(golden: Golden) -> None:
    arrays = golden("losses")
    logits = torch.from_numpy(arrays["finetune.logits"])
    target = torch.from_numpy(arrays["finetune.target"])
    valid = target != 255
    assert valid.any(), "the case must have labels"
    assert not valid.all(), "the case must have padding"
    total, terms = loss_of(logits, target)
    assert terms["cross_entropy"].item() == pytest.approx(float(arrays["finetune.loss_ce"]), rel=1e-5)

    p = logits.softmax(1).double()
    ours, leaked = [], []
    for index in range(p.shape[1]):
        g = (target == index).double()
        overlap = 2 * (p[:, index] * g).sum()
        ours.append(1 - overlap / (p[:, index][valid].square().sum() + g.sum()))
        leaked.append(1 - overlap / (p[:, index].square().sum() + g.sum()))
    authors = float(arrays["finetune.loss_dice"])
    assert float(torch.stack(leaked).mean()) == pytest.approx(authors, rel=1e-5)
    assert terms["dice"].item() == pytest.approx(float(torch.stack(ours).mean()), rel=1e-5)
    assert terms["dice"].item() < authors - 1e-3
    assert total.item() == pytest.approx(0.5 * float(terms["dice"] + terms["cross_entropy"]))


def test_ignored_pixels_take_no_part() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 8))
    target[:, 5:] = -1
    total, _ = loss_of(logits, target, ignore=-1)
    total.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, :, 5:], torch.zeros(2, 3, 3, 8))
    assert bool((logits.grad[:, :, :5].abs().sum(1) > 0).all())
    cropped, _ = loss_of(logits[:, :, :5].detach(), target[:, :5], ignore=-1)
    torch.testing.assert_close(total.detach(), cropped)


def test_batch_without_any_label_gives_zero() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    total, terms = loss_of(logits, torch.full((1, 4, 4), 255))
    total.backward()
    assert total.item() == 0.0
    assert {name: float(term) for name, term in terms.items()} == {"cross_entropy": 0.0, "dice": 0.0}
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_perfect_prediction_costs_nothing() -> None:
    target = torch.tensor([[[0, 1], [1, 0]]])
    logits = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float() * 40
    total, _ = loss_of(logits, target)
    assert total.item() == pytest.approx(0.0, abs=1e-6)


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    """Sums over 300 x 300 pixels exceed the range of half floats."""
    torch.manual_seed(1)
    logits = torch.randn(1, 2, 300, 300).half()
    target = torch.randint(0, 2, (1, 300, 300))
    half, _ = loss_of(logits, target)
    single, _ = loss_of(logits.float(), target)
    assert half.dtype == torch.float32
    assert torch.equal(half, single)
