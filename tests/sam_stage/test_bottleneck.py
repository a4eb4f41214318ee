"""Bottlenecks in the blocks of both families of encoders: nothing at first, and nothing else is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptations.adapter import ADAPTER, AdapterSettings
from nnunet_sfr.sam_stage.layers.bottleneck import AdaptedAttention, AdaptedMLP, Bottleneck
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT

BOTH = pytest.mark.parametrize("model", [SMALL_VIT, SMALL_TINY_VIT], ids=lambda model: model.backbone)


def build(model: SAMModel) -> SegmentationSAM:
    torch.manual_seed(0)
    sam = build_sam(model, input_size=64, in_channels=3, num_classes=2)
    sam.image_encoder.requires_grad_(False)
    return sam


def blocks(sam: SegmentationSAM) -> list[Any]:
    return list(sam.backbone.blocks(sam.image_encoder))


def test_values() -> None:
    """Channels (1, 2) to a middle of max(0, 1 - 2) and max(0, 2 * 2), and back."""
    bottleneck = Bottleneck(2, 2)
    with torch.no_grad():
        bottleneck.down.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
        bottleneck.down.bias.zero_()
        bottleneck.up.weight.copy_(torch.tensor([[5.0, 10.0], [7.0, 100.0]]))
        bottleneck.up.bias.copy_(torch.tensor([0.5, 0.0]))
    tokens = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(bottleneck(tokens), torch.tensor([[40.5, 400.0]]))
    double = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        double.weight.copy_(2 * torch.eye(2))
    # behind the attention it sees (2, 4), beside the MLP (1, 2)
    torch.testing.assert_close(AdaptedAttention(double, bottleneck)(tokens), torch.tensor([[82.5, 804.0]]))
    torch.testing.assert_close(AdaptedMLP(double, bottleneck)(tokens), torch.tensor([[42.5, 404.0]]))


@BOTH
def test_fresh_adapter_equals_the_base(model: SAMModel) -> None:
    sam = build(model)
    images = torch.rand(2, 3, 64, 64)
    before = sam.encode(images)
    ADAPTER.prepare(sam, AdapterSettings())
    assert torch.equal(sam.encode(images), before)


@BOTH
def test_bottlenecks_alone_are_trained(model: SAMModel) -> None:
    sam = build(model)
    base = set(sam.image_encoder.parameters())
    ADAPTER.prepare(sam, AdapterSettings())
    added = {name: parameter for name, parameter in sam.image_encoder.named_parameters() if parameter not in base}
    trained = {name for name, parameter in sam.image_encoder.named_parameters() if parameter.requires_grad}
    assert trained == added.keys()
    number_of_blocks = {"vit": 2, "tiny_vit": 4}[model.backbone]
    assert len(trained) == number_of_blocks * 2 * 4
    for name, parameter in added.items():
        if name.endswith("up.weight"):
            nn.init.normal_(parameter, std=0.3)
    (sam.encode(torch.rand(1, 3, 64, 64)) * torch.rand(32, 1, 1)).sum().backward()
    for name, parameter in added.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@BOTH
@pytest.mark.parametrize(("share", "of_the_widest"), [(0.25, {"vit": 12, "tiny_vit": 6}), (0.001, None)])
def test_width_is_a_share_of_the_channels(model: SAMModel, share: float, of_the_widest: dict[str, int] | None) -> None:
    sam = build(model)
    ADAPTER.prepare(sam, AdapterSettings(width_share=share))
    last = blocks(sam)[-1]
    width = of_the_widest[model.backbone] if of_the_widest else 1
    assert last.attn.bottleneck.down.out_features == last.mlp.bottleneck.down.out_features == width


@BOTH
def test_wrapped_attention_still_has_its_projection(model: SAMModel) -> None:
    sam = build(model)
    projections = [block.attn.qkv for block in blocks(sam)]
    ADAPTER.prepare(sam, AdapterSettings())
    assert all(block.attn.qkv is projection for block, projection in zip(blocks(sam), projections, strict=True))


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_share_is_checked(share: float) -> None:
    with pytest.raises(ValueError, match="width_share must be above 0 and at most 1, got"):
        AdapterSettings(width_share=share)
