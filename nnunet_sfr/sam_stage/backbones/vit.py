"""SAM's own image encoder, a vision transformer (segment-anything's implementation)."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_sfr.sam_models import SAMModel, ViTSizes
from nnunet_sfr.sam_stage.backbones.backbone import Backbone, check_stride, fit_channels
from nnunet_sfr.sam_stage.layers.frozen_encoder import FrozenEncoder
from nnunet_sfr.sam_stage.layers.relative_attention import RelativeAttention
from nnunet_sfr.sam_stage.layers.split_qkv import fuse_projections

_POSITIONS = "pos_embed"
_PATCH_KERNEL = "patch_embed.proj.weight"
_RELATIVE_POSITIONS = re.compile(r"blocks\.(\d+)\.attn\.rel_pos_[hw]")


def build(model: SAMModel, input_size: int, channels: int) -> ImageEncoderViT:
    """A ViT with random weights. The names of its parameters are those of the published files.

    Args:
        model: its ``encoder`` has ViTSizes.
        input_size: side S of the canvas in pixels.
        channels: of the image.

    Raises:
        ValueError: the patch does not divide the canvas, or is not the stride.
    """
    sizes = model.encoder
    if not isinstance(sizes, ViTSizes):
        raise ValueError(f"{model.name}: vit needs ViTSizes, got {type(sizes).__name__}")
    patch = sizes.patch_size
    check_stride(model, patch, input_size)
    encoder = ImageEncoderViT(
        img_size=input_size,
        patch_size=patch,
        in_chans=channels,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        mlp_ratio=4,
        out_chans=model.decoder.dim,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_abs_pos=True,
        use_rel_pos=True,
        window_size=sizes.window_size,
        global_attn_indexes=sizes.global_blocks,
    )
    # segment-anything leaves zeros for the checkpoint to fill; a network from scratch starts as ViT does.
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    for block in encoder.blocks:
        block.attn = RelativeAttention(block.attn)
    return encoder


def rename(name: str) -> str:
    """The names are the published ones."""
    return name


def fit(encoder: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Fit positions to the canvas and the first kernel to the channels (:func:`fit_channels`); other tensors stay.

    Absolute positions are interpolated bilinearly and the relative positions of blocks with global attention linearly
    (windows keep theirs).

    Args:
        encoder: of :func:`build`.
        name: the encoder's own.
        tensor: published.
    """
    if name == _POSITIONS and tensor.ndim == 4:
        return _fit_positions(tensor, tokens=_tokens(encoder))
    if name == _PATCH_KERNEL and tensor.ndim == 4:
        return fit_channels(tensor, encoder.get_parameter(name).shape[1])
    block = _RELATIVE_POSITIONS.fullmatch(name)
    if block and tensor.ndim == 2 and blocks(encoder)[int(block[1])].window_size == 0:
        return _fit_relative_positions(tensor, tokens=_tokens(encoder))
    return tensor


def patch_embedding(encoder: nn.Module) -> nn.Module:
    """The convolution from pixels to tokens."""
    return encoder.get_submodule("patch_embed")


def blocks(encoder: nn.Module) -> Sequence[nn.Module]:
    """All blocks."""
    return cast(Sequence[nn.Module], encoder.blocks)


def qkv_rows(attn: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``attn.qkv`` that give query, key and value, each int64 [dim]: one after the other."""
    projection = cast(nn.Linear, attn.qkv)
    query, key, value = torch.arange(projection.out_features, device="cpu").chunk(3)
    return query, key, value


def for_inference(encoder: nn.Module) -> FrozenEncoder:
    """A frozen copy with LoRA added to the weights, in bfloat16 where that is native."""
    frozen = copy.deepcopy(encoder)
    fuse_projections(frozen)
    return FrozenEncoder(frozen)


def _tokens(encoder: nn.Module) -> int:
    """Tokens along a side of the canvas."""
    return encoder.get_parameter(_POSITIONS).shape[1]


def _fit_positions(positions: Tensor, *, tokens: int) -> Tensor:
    """From [1, h, w, C] to [1, tokens, tokens, C]."""
    if positions.shape[1:3] == (tokens, tokens):
        return positions
    channels_first = positions.permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, size=(tokens, tokens), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _fit_relative_positions(table: Tensor, *, tokens: int) -> Tensor:
    """From [2 * size - 1, C] to [2 * tokens - 1, C]: one row for each distance between two tokens."""
    distances = 2 * tokens - 1
    if len(table) == distances:
        return table
    return F.interpolate(table.T[None], size=distances, mode="linear", align_corners=False)[0].T


BACKBONE = Backbone(
    build=build,
    rename=rename,
    fit=fit,
    patch_embedding=patch_embedding,
    blocks=blocks,
    qkv_rows=qkv_rows,
    for_inference=for_inference,
)
