"""SAM's own encoder: segment-anything's numbers and names, fitted to other canvases, and its form for inference."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from torch import nn

from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage import inference_precision
from nnunet_sfr.sam_stage.adaptations.adapter import ADAPTER, AdapterSettings
from nnunet_sfr.sam_stage.adaptations.lora import LORA, LoRASettings
from nnunet_sfr.sam_stage.backbones import find_backbone
from nnunet_sfr.sam_stage.backbones.vit import BACKBONE
from nnunet_sfr.sam_stage.sam import build_sam
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT


def build(model: SAMModel = SMALL_VIT, *, size: int = 64, channels: int = 3, seed: int = 0) -> nn.Module:
    """Every tensor is random, also those that start at 0."""
    torch.manual_seed(seed)
    encoder = BACKBONE.build(model, size, channels)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "rel_pos" in name or parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder


def stock(encoder: nn.Module) -> ImageEncoderViT:
    """segment-anything's encoder of the small size with the same weights and its own attention."""
    theirs = ImageEncoderViT(
        img_size=64,
        embed_dim=48,
        depth=2,
        num_heads=3,
        out_chans=32,
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    theirs.load_state_dict(encoder.state_dict())
    assert all(isinstance(block.attn, Attention) for block in theirs.blocks)
    return theirs


def test_equals_segment_anything_with_windows_and_padding() -> None:
    encoder = build()
    images = torch.randn(2, 3, 64, 64)
    assert find_backbone(SMALL_VIT) is BACKBONE
    torch.testing.assert_close(encoder(images), stock(encoder)(images), rtol=1e-4, atol=1e-5)


def test_positions_start_as_a_vit_does() -> None:
    torch.manual_seed(0)
    encoder = BACKBONE.build(MODELS["vit_tiny"], 128, 3)
    assert encoder.get_parameter("pos_embed").std().item() == pytest.approx(0.02, rel=0.1)
    assert [block.window_size for block in BACKBONE.blocks(encoder)] == [8, 0, 8, 0]


@pytest.mark.parametrize("size", [40, 8, 0])
def test_canvases_that_do_not_fit(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of small's stride, 16; got {size}"):
        BACKBONE.build(SMALL_VIT, size, 3)


def test_records_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="small_tiny_vit: vit needs ViTSizes, got TinyViTSizes"):
        BACKBONE.build(SMALL_TINY_VIT, 64, 3)
    with pytest.raises(ValueError, match="small: its encoder has a stride of 16, not 8"):
        BACKBONE.build(dataclasses.replace(SMALL_VIT, stride=8), 64, 3)


def test_parts_by_name() -> None:
    encoder = build()
    assert BACKBONE.rename("blocks.0.attn.qkv.weight") == "blocks.0.attn.qkv.weight"
    kernels = {id(parameter) for parameter in BACKBONE.patch_embedding(encoder).parameters()}
    assert kernels == {id(value) for name, value in encoder.named_parameters() if name.startswith("patch_embed.")}
    attn: Any = BACKBONE.blocks(encoder)[0].attn
    query, key, value = BACKBONE.qkv_rows(attn)
    assert [(part[0].item(), part[-1].item(), len(part)) for part in (query, key, value)] == [
        (0, 47, 48),
        (48, 95, 48),
        (96, 143, 48),
    ]


def test_what_fits_is_not_touched() -> None:
    encoder = build()
    for name, tensor in encoder.state_dict().items():
        assert BACKBONE.fit(encoder, name, tensor) is tensor


@pytest.mark.parametrize("size", [32, 128])
def test_positions_are_fitted_to_another_canvas(size: int) -> None:
    """Positions that are linear in the coordinate stay linear, which fixes where the samples lie."""
    old, new = 4, size // 16
    encoder = build(size=size)
    ramp = (torch.arange(old) + 0.5) / old
    positions = (ramp[:, None] + 10 * ramp)[None, :, :, None].repeat(1, 1, 1, 48)
    fitted = BACKBONE.fit(encoder, "pos_embed", positions)
    assert fitted.shape == (1, new, new, 48)
    fine = ((torch.arange(new) + 0.5) / new).clamp(ramp[0], ramp[-1])
    torch.testing.assert_close(fitted[0, :, :, 7], fine[:, None] + 10 * fine)

    table = torch.linspace(-1, 1, 2 * old - 1)[:, None].repeat(1, 16)
    for axis in "hw":
        relative = BACKBONE.fit(encoder, f"blocks.1.attn.rel_pos_{axis}", table)
        assert relative.shape == (2 * new - 1, 16)
        assert relative[new - 1].abs().max().item() < 1e-6, "no distance is still in the middle"
        assert bool((relative[:, 0].diff() > 0).all() if size < 64 else (relative[:, 0].diff() >= 0).all())
    windows = torch.randn(5, 16)
    assert BACKBONE.fit(encoder, "blocks.0.attn.rel_pos_h", windows) is windows, "windows keep their size"


@pytest.mark.parametrize("channels", [2, 5])
def test_equal_channels_give_what_the_grey_image_gives(channels: int) -> None:
    rgb, many = build(), build(channels=channels)
    many.load_state_dict({name: BACKBONE.fit(many, name, tensor) for name, tensor in rgb.state_dict().items()})
    image = torch.randn(2, 1, 64, 64)
    expected = rgb(image.repeat(1, 3, 1, 1))
    torch.testing.assert_close(many(image.repeat(1, channels, 1, 1)), expected, rtol=1e-4, atol=1e-5)


def test_tensors_of_another_kind_are_left_to_the_caller() -> None:
    encoder = build()
    for name in ("pos_embed", "patch_embed.proj.weight", "blocks.1.attn.rel_pos_h"):
        odd = torch.zeros(3)
        assert BACKBONE.fit(encoder, name, odd) is odd


@pytest.mark.parametrize("adaptation", ["none", "lora", "adapter"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_form_for_inference(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None, adaptation: str) -> None:
    monkeypatch.setattr(inference_precision, "inference_dtype", lambda device: dtype)
    torch.manual_seed(0)
    sam = build_sam(SMALL_VIT, input_size=64, in_channels=3, num_classes=2)
    if adaptation == "lora":
        LORA.prepare(sam, LoRASettings())
    if adaptation == "adapter":
        ADAPTER.prepare(sam, AdapterSettings())
    encoder = sam.image_encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name or "up." in name or "rel_pos" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    flags = [parameter.requires_grad for parameter in encoder.parameters()]
    images = torch.randn(2, 3, 64, 64)
    expected = encoder(images).detach()

    frozen = BACKBONE.for_inference(encoder)
    embedding = frozen(images)
    assert embedding.dtype == torch.float32
    assert embedding.is_contiguous()
    assert not embedding.requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any("lora" in name for name, _ in frozen.named_parameters())
    tolerance = 1e-5 if dtype is None else 0.05
    assert (embedding - expected).abs().max() < tolerance * expected.abs().max()
    assert (dtype is None) == torch.allclose(embedding, expected, rtol=1e-4, atol=1e-5)
    assert not frozen.train().training

    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert [parameter.requires_grad for parameter in encoder.parameters()] == flags
    torch.testing.assert_close(encoder(images), expected)
