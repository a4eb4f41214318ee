"""Blocks that compute their activations twice give the same numbers and keep less."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptations.lora import LORA, LoRASettings
from nnunet_sfr.sam_stage.layers.checkpointing import checkpoint_blocks
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT

BOTH = pytest.mark.parametrize("model", [SMALL_VIT, SMALL_TINY_VIT], ids=lambda model: model.backbone)


def build(model: SAMModel) -> SegmentationSAM:
    torch.manual_seed(0)
    return build_sam(model, input_size=64, in_channels=3, num_classes=2)


def step(encoder: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor], int]:
    """Output, gradients by name, and the number of values that autograd keeps."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    encoder.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = encoder(images)
    size = sum(kept.values())
    output.square().mean().backward()
    gradients = {name: value.grad.clone() for name, value in encoder.named_parameters() if value.grad is not None}
    return output.detach(), gradients, size


def blocks(sam: SegmentationSAM, encoder: nn.Module) -> list[Any]:
    return list(sam.backbone.blocks(encoder))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@BOTH
def test_same_numbers_with_less_memory(model: SAMModel, lora: bool) -> None:
    sam = build(model)
    if lora:
        sam.image_encoder.requires_grad_(False)
        LORA.prepare(sam, LoRASettings())
    plain = sam.image_encoder
    recomputed = copy.deepcopy(plain)
    names = list(plain.state_dict())
    checkpoint_blocks(blocks(sam, recomputed))
    checkpoint_blocks(blocks(sam, recomputed))
    assert list(recomputed.state_dict()) == names
    images = torch.rand(2, 3, 64, 64)
    expected, expected_gradients, size = step(plain, images)
    output, gradients, smaller_size = step(recomputed, images)
    assert torch.equal(output, expected)
    assert gradients.keys() == expected_gradients.keys()
    assert gradients
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected_gradients.items())
    assert smaller_size < 0.6 * size


@BOTH
def test_each_block_runs_once_more_and_only_with_gradients(model: SAMModel) -> None:
    sam = build(model)
    checkpoint_blocks(blocks(sam, sam.image_encoder))
    calls: list[int] = []
    for block in blocks(sam, sam.image_encoder):
        block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    number = len(blocks(sam, sam.image_encoder))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        sam.encode(images)
    assert len(calls) == number
    sam.encode(images).sum().backward()
    assert len(calls) == 3 * number


def test_a_copy_recomputes_its_own_weights() -> None:
    sam = build(SMALL_VIT)
    checkpoint_blocks(blocks(sam, sam.image_encoder))
    other = copy.deepcopy(sam.image_encoder)
    images = torch.rand(1, 3, 64, 64)
    before = sam.encode(images)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(sam.encode(images), before)
    assert other(images).abs().max() == 0
