"""Adapters change what they should and nothing else, and give the authors' numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptation import adapt, adapter_state, encoder_is_frozen, load_adapter_state
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS, find_adaptation
from nnunet_sfr.sam_stage.layers.prototypes import PrototypePrompts
from nnunet_sfr.sam_stage.sam import UNUSED_MODULES, SegmentationSAM, build_sam
from nnunet_sfr.settings import SAMSettings
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT

Golden = Callable[[str], Mapping[str, np.ndarray]]

TOKEN_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
LORA = SAMSettings(model="vit_b", adaptation="lora", adaptation_settings={"rank": 4})
DECODER = SAMSettings(model="vit_b", adaptation="decoder")
EVERY_ADAPTATION = pytest.mark.parametrize(
    "settings", [SAMSettings(model="vit_b", adaptation=name) for name in ADAPTATIONS], ids=lambda s: s.adaptation
)
EVERY_BACKBONE = pytest.mark.parametrize("small", [SMALL_VIT, SMALL_TINY_VIT], ids=lambda model: model.backbone)
ADDED = ("lora_", ".down.", ".up.")
"""Parts of the names of what adaptations put into the encoder."""


def build(small: SAMModel, *, in_channels: int = 3, num_classes: int = 2, seed: int = 0) -> SegmentationSAM:
    torch.manual_seed(seed)
    return build_sam(small, input_size=64, in_channels=in_channels, num_classes=num_classes)


def is_trained(name: str, settings: SAMSettings) -> bool:
    """What the names alone say about a network for three channels."""
    if name.startswith(UNUSED_MODULES):
        return False
    added = any(part in name for part in ADDED)
    return settings.adaptation == "full" or added or not name.startswith("image_encoder.")


def train(sam: SegmentationSAM, *, steps: int = 3) -> None:
    if isinstance(sam.prompts, PrototypePrompts):
        labels = torch.arange(64 * 64).view(64, 64) % 64 // 32
        sam.prompts.collect(
            [(sam.encode(torch.randn(1, sam.in_channels, 64, 64)).detach()[0], labels)], 2, ignore_index=-1
        )
    optimizer = torch.optim.AdamW([p for p in sam.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        sam(torch.randn(1, sam.in_channels, 64, 64)).square().mean().backward()
        optimizer.step()


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def load_golden_weights(sam: SegmentationSAM, arrays: Mapping[str, np.ndarray]) -> None:
    state = {"image_encoder." + name[4:]: tensor(array) for name, array in arrays.items() if name.startswith("enc.")}
    state |= {name[4:]: tensor(array) for name, array in arrays.items() if name.startswith("sam.")}
    sam.load_state_dict(state)


def golden_lora_parameters(sam: SegmentationSAM) -> list[tuple[str, nn.Parameter]]:
    """(name in the golden file, parameter): the file numbers block 0 query, block 0 value, block 1 query, ..."""
    pairs = []
    blocks: Any = sam.image_encoder.blocks
    for index, block in enumerate(blocks):
        for offset, projection in enumerate((block.attn.qkv.q, block.attn.qkv.v)):
            number = f"{2 * index + offset:03d}"
            pairs.append((f"w_a_{number}", projection.lora_A["default"].weight))
            pairs.append((f"w_b_{number}", projection.lora_B["default"].weight))
    return pairs


def record(module: nn.Module, into: dict[str, Any], key: str) -> None:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        into[f"{key}_in"], into[f"{key}_out"] = inputs[0].detach(), output.detach()

    module.register_forward_hook(hook)


def close(actual: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(actual.detach(), tensor(expected), rtol=1e-4, atol=1e-4)


def test_samed_values(golden: Golden, small: SAMModel) -> None:
    """Encoder without and with LoRA, block by block, the adapters' gradients, and the whole network's maps."""
    arrays = golden("samed_lora")
    sam = build(small)
    load_golden_weights(sam, arrays)
    images = tensor(arrays["input"])
    blocks: Any = sam.image_encoder.blocks
    plain: dict[str, Tensor] = {}
    for index in range(2):
        record(blocks[index], plain, f"block{index}")
    close(sam.image_encoder(images), arrays["output_plain"])
    for index in range(2):
        close(plain[f"block{index}_out"], arrays[f"block{index}_plain"])

    adapt(sam, LORA)
    with torch.no_grad():
        for name, parameter in golden_lora_parameters(sam):
            parameter.copy_(tensor(arrays[f"lora.{name}"]))
    adapted: dict[str, Tensor] = {}
    for index in range(2):
        record(blocks[index], adapted, f"block{index}")
        record(blocks[index].attn.qkv, adapted, f"qkv{index}")
    output = sam.image_encoder(images)
    close(output, arrays["output_lora"])
    assert not np.allclose(arrays["output_lora"], arrays["output_plain"], atol=1e-2), "LoRA must show in this case"
    for index in range(2):
        close(adapted[f"block{index}_out"], arrays[f"block{index}_lora"])
        close(adapted[f"qkv{index}_in"], arrays[f"qkv{index}_in"])
        close(adapted[f"qkv{index}_out"], arrays[f"qkv{index}_out"])

    loss = (output * tensor(arrays["loss_weights"])).mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-4, abs=1e-6)
    for name, parameter in golden_lora_parameters(sam):
        expected = tensor(arrays[f"lora.grad_{name}"])
        assert parameter.grad is not None
        # The gradients are small: compare relative to the largest.
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_samed_segmentation(golden: Golden, small: SAMModel) -> None:
    arrays = golden("samed_lora")
    sam = build(small)
    load_golden_weights(sam, arrays)
    adapt(sam, LORA)
    with torch.no_grad():
        for name, parameter in golden_lora_parameters(sam):
            parameter.copy_(tensor(arrays[f"lora.{name}"]))
    maps: list[Tensor] = []
    original = sam.mask_decoder.predict_masks

    def predict_masks(**arguments: Tensor) -> tuple[Tensor, Tensor]:
        masks, quality = original(**arguments)
        maps.append(masks)
        return masks, quality

    sam.mask_decoder.predict_masks = predict_masks
    close(sam(tensor(arrays["input"])), arrays["sam_out.masks"])
    close(maps[0], arrays["sam_out.low_res_logits"])


@EVERY_BACKBONE
@EVERY_ADAPTATION
def test_fresh_adapter_changes_nothing(small: SAMModel, settings: SAMSettings) -> None:
    sam = build(small)
    images = torch.randn(2, 3, 64, 64)
    before = sam(images)
    assert adapt(sam, settings) is sam
    torch.testing.assert_close(sam(images), before, rtol=1e-5, atol=1e-6)


@torch.no_grad()  # attention that wants a gradient takes another path
def test_fresh_lora_equals_the_split_network_bit_for_bit(small: SAMModel) -> None:
    sam = build(small)
    adapt(sam, LORA)
    images = torch.randn(2, 3, 64, 64)
    with_lora = sam(images)
    blocks: Any = sam.image_encoder.blocks
    for block in blocks:
        block.attn.qkv.q = block.attn.qkv.q.base_layer
        block.attn.qkv.v = block.attn.qkv.v.base_layer
    assert torch.equal(sam(images), with_lora)


@EVERY_BACKBONE
@EVERY_ADAPTATION
def test_training_moves_the_named_parameters_only(small: SAMModel, settings: SAMSettings) -> None:
    sam = adapt(build(small), settings)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    train(sam)
    moved = {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, _ in sam.named_parameters() if is_trained(name, settings)}
    prompts = {"prompts.prototypes", "prompts.collected"} if settings.adaptation == "few_shot" else set()
    assert moved == trained | prompts
    assert set(adapter_state(sam)) == trained | prompts | {TOKEN_POSITIONS}
    assert any("lora_" in name for name in moved) == (settings.adaptation == "lora")
    assert encoder_is_frozen(sam) == find_adaptation(settings.adaptation).frozen_encoder


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4])
@EVERY_ADAPTATION
def test_the_record_tells_without_a_network_whether_the_encoder_is_frozen(
    small: SAMModel, settings: SAMSettings, in_channels: int
) -> None:
    sam = adapt(build(small, in_channels=in_channels), settings)
    assert encoder_is_frozen(sam) == find_adaptation(settings.adaptation).freezes_encoder(in_channels)


def test_lora_is_on_query_and_value_of_every_block(small: SAMModel) -> None:
    sam = adapt(build(small), SAMSettings(model="vit_b", adaptation="lora", adaptation_settings={"rank": 3}))
    shapes = {name: tuple(value.shape) for name, value in sam.named_parameters() if "lora_" in name}
    assert shapes == {
        f"image_encoder.blocks.{block}.attn.qkv.{projection}.lora_{side}.default.weight": shape
        for block in range(2)
        for projection in "qv"
        for side, shape in (("A", (3, 48)), ("B", (48, 3)))
    }


@EVERY_BACKBONE
@EVERY_ADAPTATION
def test_patch_embedding_of_other_channel_counts_is_trained(small: SAMModel, settings: SAMSettings) -> None:
    sam = adapt(build(small, in_channels=2), settings)
    first = dict(sam.backbone.patch_embedding(sam.image_encoder).named_parameters())
    assert first
    assert all(parameter.requires_grad for parameter in first.values())
    assert not encoder_is_frozen(sam)


@EVERY_BACKBONE
@EVERY_ADAPTATION
def test_saved_adapter_gives_the_same_output(small: SAMModel, settings: SAMSettings, tmp_path: Path) -> None:
    """The second network shares what a checkpoint would give it: all but the trained parts and the random positions."""
    trained = adapt(build(small), settings)
    train(trained)
    save_file(adapter_state(trained), tmp_path / "adapter.safetensors")
    fresh = adapt(build(small), settings)
    with torch.no_grad():
        for parameter in fresh.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
        fresh.get_buffer(TOKEN_POSITIONS).add_(1)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(fresh(images), trained(images))
    load_adapter_state(fresh, load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(fresh(images), trained(images))


def test_adapter_state_is_a_copy(small: SAMModel) -> None:
    sam = adapt(build(small), DECODER)
    state = adapter_state(sam)
    kept = {name: value.clone() for name, value in state.items()}
    train(sam, steps=1)
    assert all(torch.equal(state[name], kept[name]) for name in state)


def test_adapters_of_other_networks_are_refused(small: SAMModel) -> None:
    sam = adapt(build(small), LORA)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    with pytest.raises(ValueError, match="lacks image_encoder"):
        load_adapter_state(sam, adapter_state(adapt(build(small, seed=1), DECODER)))
    with pytest.raises(ValueError, match="has the unknown image_encoder"):
        load_adapter_state(adapt(build(small), DECODER), adapter_state(sam))
    other_rank = SAMSettings(model="vit_b", adaptation="lora", adaptation_settings={"rank": 2})
    with pytest.raises(ValueError, match=r"has the shape \[2, 48\], the network's \[4, 48\]"):
        load_adapter_state(sam, adapter_state(adapt(build(small, seed=1), other_rank)))
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
