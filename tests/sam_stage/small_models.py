"""Records of SAMs that run in milliseconds, with every part of the large ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from nnunet_sfr.sam_models import Canvas, DecoderSizes, GivenFile, SAMModel, TinyViTSizes, ViTSizes, Weights

_DECODER = DecoderSizes(dim=32, mlp_dim=48, num_heads=4, mask_prompt_channels=4, iou_head_dim=32)

SMALL_VIT = SAMModel(
    name="small",
    summary="the sizes of the golden vectors in samed_lora.npz",
    backbone="vit",
    # At 64 pixels it has 4 x 4 tokens, so windows of 3 need padding.
    encoder=ViTSizes(embed_dim=48, depth=2, num_heads=3, global_blocks=(1,), window_size=3),
    decoder=_DECODER,
    stride=16,
    canvas=Canvas(step=16, largest=64),
    intensities="as_preprocessed",
    weights=None,
    adaptation="full",
)

SMALL_TINY_VIT = SAMModel(
    name="small_tiny_vit",
    summary="as LiteMedSAM",
    backbone="tiny_vit",
    # At 64 pixels the stages with attention have 32, 16 and 16 tokens along a side, so windows of 7 need padding.
    encoder=TinyViTSizes(
        embed_dims=(8, 12, 16, 24),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 2, 3),
        stem_kernel=1,
        stem_stride=1,
    ),
    decoder=_DECODER,
    stride=4,
    canvas=Canvas(step=16, largest=64),
    intensities="zero_to_one",
    weights=None,
    adaptation="decoder",
)

SMALL_PRETRAINED = replace(
    SMALL_TINY_VIT,
    name="small_pretrained",
    weights=Weights(file="small_pretrained.pth", source=GivenFile(where="a fixture of the tests")),
)


def with_published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As TinyViT's authors name the tensors; those of a ViT have no such names and stay."""
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^(image_encoder\.patch_embed)\.conv1\.", r"\1.seq.0."),
        (r"^(image_encoder\.patch_embed)\.conv2\.", r"\1.seq.2."),
        (r"^image_encoder\.stages\.(\d+)\.downsample\.", lambda m: f"image_encoder.layers.{int(m[1]) - 1}.downsample."),
        (r"^image_encoder\.stages\.", "image_encoder.layers."),
        (r"^(image_encoder\..*)\.conv\.", r"\1.c."),
    ]
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
