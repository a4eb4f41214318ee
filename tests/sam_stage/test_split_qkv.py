"""Split projections equal the fused ones, and LoRA sits on query and value of both families of encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptations.lora import LORA, LoRASettings
from nnunet_sfr.sam_stage.layers.split_qkv import SplitQKV, fuse_projections
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT

BOTH = pytest.mark.parametrize("model", [SMALL_VIT, SMALL_TINY_VIT], ids=lambda model: model.backbone)

ROWS = {
    "one after the other": tuple(torch.arange(36).chunk(3)),
    "head by head": tuple(torch.arange(36).view(3, 3, 4).unbind(1)),
    "shuffled": tuple(torch.randperm(36, generator=torch.Generator().manual_seed(0)).chunk(3)),
    "different lengths": (torch.arange(20, 28), torch.arange(28, 36), torch.arange(20)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", ROWS)
def test_split_equals_fused(layout: str, bias: bool) -> None:
    torch.manual_seed(0)
    fused = nn.Linear(12, 36, bias=bias)
    rows = [part.flatten() for part in ROWS[layout]]
    split = SplitQKV(fused, rows)
    tokens = torch.randn(2, 5, 12, requires_grad=True)
    weights = torch.randn(2, 5, 36)
    expected = fused(tokens)
    torch.testing.assert_close(split(tokens), expected, rtol=1e-6, atol=1e-6)
    for part, index in zip((split.q, split.k, split.v), rows, strict=True):
        torch.testing.assert_close(part(tokens), expected[..., index], rtol=1e-6, atol=1e-6)
        assert (part.bias is not None) == bias
    (expected_gradient,) = torch.autograd.grad((fused(tokens) * weights).sum(), tokens)
    (gradient,) = torch.autograd.grad((split(tokens) * weights).sum(), tokens)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)
    back = split.fuse()
    assert torch.equal(back.weight, fused.weight)
    assert back.bias is fused.bias is None or torch.equal(back.bias, fused.bias)


def test_rows_must_be_every_row_once() -> None:
    fused = nn.Linear(4, 12)
    doubled = [torch.arange(4), torch.arange(4), torch.arange(8, 12)]
    for rows in (doubled, list(torch.arange(9).chunk(3)), list(torch.arange(12).chunk(2))):
        with pytest.raises(ValueError, match="the 12 rows of the layer, each once"):
            SplitQKV(fused, rows)


def build(model: SAMModel) -> SegmentationSAM:
    """Small, frozen as before an adaptation, with values that make attention matter."""
    torch.manual_seed(0)
    sam = build_sam(model, input_size=64, in_channels=3, num_classes=2)
    sam.image_encoder.requires_grad_(False)
    return sam


def blocks(sam: SegmentationSAM) -> list[Any]:
    return list(sam.backbone.blocks(sam.image_encoder))


def randomise_lora(sam: SegmentationSAM) -> None:
    for name, parameter in sam.image_encoder.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)


def trainable(sam: SegmentationSAM) -> set[str]:
    return {name for name, parameter in sam.image_encoder.named_parameters() if parameter.requires_grad}


@BOTH
def test_fresh_lora_equals_the_base(model: SAMModel) -> None:
    sam = build(model)
    images = torch.rand(2, 3, 64, 64)
    before = sam.encode(images)
    LORA.prepare(sam, LoRASettings())
    torch.testing.assert_close(sam.encode(images), before, rtol=1e-6, atol=1e-6)


@BOTH
def test_lora_is_trained_on_query_and_value_alone(model: SAMModel) -> None:
    sam = build(model)
    fused = {id(block): block.attn.qkv for block in blocks(sam)}
    LORA.prepare(sam, LoRASettings(rank=3))
    assert len(fused) == {"vit": 2, "tiny_vit": 4}[model.backbone]
    shapes: dict[str, tuple[int, int]] = {}
    for block in blocks(sam):
        dim = fused[id(block)].in_features
        prefix = next(name for name, module in sam.image_encoder.named_modules() if module is block)
        for part in "qv":
            shapes[f"{prefix}.attn.qkv.{part}.lora_A.default.weight"] = (3, dim)
            shapes[f"{prefix}.attn.qkv.{part}.lora_B.default.weight"] = (dim, 3)
    assert trainable(sam) == shapes.keys()
    assert {name: tuple(sam.image_encoder.get_parameter(name).shape) for name in shapes} == shapes

    randomise_lora(sam)
    (sam.encode(torch.rand(1, 3, 64, 64)) * torch.rand(32, 1, 1)).sum().backward()
    for name in shapes:
        gradient = sam.image_encoder.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name


def test_names_on_a_vit_are_those_of_version_0_1() -> None:
    sam = build(SMALL_VIT)
    LORA.prepare(sam, LoRASettings(rank=2))
    block = {name.removeprefix("blocks.1.") for name in sam.image_encoder.state_dict() if name.startswith("blocks.1.")}
    projections = {f"attn.qkv.{part}" for part in ("q.base_layer", "k", "v.base_layer")}
    others = {"attn.proj", "norm1", "norm2", "mlp.lin1", "mlp.lin2"}
    assert block == {
        *(f"{module}.{kind}" for module in projections | others for kind in ("weight", "bias")),
        *(f"attn.qkv.{part}.lora_{side}.default.weight" for part in "qv" for side in "AB"),
        *("attn.rel_pos_h", "attn.rel_pos_w"),
    }


@BOTH
def test_lora_changes_query_and_value_by_its_product(model: SAMModel) -> None:
    """W x + B A x without a scale, in the rows of query and value and in no other."""
    sam = build(model)
    block = blocks(sam)[-1]
    rows, fused = sam.backbone.qkv_rows(block.attn), block.attn.qkv
    LORA.prepare(sam, LoRASettings())
    randomise_lora(sam)
    tokens = torch.randn(5, fused.in_features)
    difference = block.attn.qkv(tokens) - fused(tokens)

    def product(layer: Any) -> Tensor:
        change: Tensor = layer.lora_B["default"](layer.lora_A["default"](tokens))
        return change

    for part, index in zip("qv", (rows[0], rows[2]), strict=True):
        layer = block.attn.qkv.get_submodule(part)
        torch.testing.assert_close(difference[:, index], product(layer), rtol=1e-4, atol=1e-5)
    assert difference[:, rows[1]].abs().max() < 1e-6


@BOTH
def test_fused_again_with_lora_in_the_weights(model: SAMModel) -> None:
    sam = build(model)
    images = torch.rand(1, 3, 64, 64)
    names = list(sam.state_dict())
    plain = sam.encode(images)
    LORA.prepare(sam, LoRASettings())
    randomise_lora(sam)
    adapted = sam.encode(images)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    fuse_projections(sam)
    assert list(sam.state_dict()) == names
    torch.testing.assert_close(sam.encode(images), adapted, rtol=1e-4, atol=1e-5)


def test_rank_is_checked() -> None:
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        LoRASettings(rank=0)
