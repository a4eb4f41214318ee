"""TinyViT (Wu et al., ECCV 2022; timm's implementation) as the image encoder of LiteMedSAM and MobileSAM.

Both have SAM's neck behind it and no stride in the last merge. LiteMedSAM's stem has no stride either, so that its
embedding has a stride of 4 where SAM's has 16. There are no absolute positions: every canvas that the stride divides
works with the same weights.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nnunet_sfr.sam_models import SAMModel, TinyViTSizes
from nnunet_sfr.sam_stage.backbones.backbone import Backbone, check_stride, fit_channels
from nnunet_sfr.sam_stage.layers.frozen_encoder import FrozenEncoder
from nnunet_sfr.sam_stage.layers.split_qkv import fuse_projections

with warnings.catch_warnings():
    # timm imports all of its models, and newer versions of torch warn of what one of the others uses
    warnings.filterwarnings("ignore", ".*torch.jit.interface", FutureWarning)
    from timm.models.tiny_vit import Attention, ConvNorm, TinyVit, TinyVitBlock

_FIRST_KERNEL = "patch_embed.conv1.conv.weight"


class WindowAttention(Attention):
    """timm's attention within windows, with its position biases looked up in every forward.

    timm keeps those of the first forward in evaluation mode, with their graph: it would not see weights that are loaded
    later, and could be neither copied nor differentiated twice.
    """

    attention_bias_idxs: Tensor

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """Biases [1, heads, tokens, tokens]; torch's fast attention on CPUs takes a mask of four axes, not of three."""
        return self.attention_biases[:, self.attention_bias_idxs][None]


class TinyViTEncoder(TinyVit):
    """timm's TinyViT without its classifier, with the stem that ``sizes`` asks for and SAM's neck.

    Batch norm always uses its running statistics and never changes them, in training too: a batch of a few stitched
    canvases says little about them.

    Args:
        sizes: of the encoder.
        channels: of the image.
        dim: channels of the embedding.
    """

    def __init__(self, sizes: TinyViTSizes, *, channels: int, dim: int) -> None:
        super().__init__(
            in_chans=channels,
            num_classes=0,
            embed_dims=sizes.embed_dims,
            depths=sizes.depths,
            num_heads=sizes.num_heads,
            window_sizes=sizes.window_sizes,
            drop_path_rate=0.0,
        )
        del self.head
        width, kernel = sizes.embed_dims[0], sizes.stem_kernel
        stem = {"ks": kernel, "stride": sizes.stem_stride, "pad": kernel // 2}
        self.patch_embed.conv1 = ConvNorm(channels, width // 2, **stem)
        self.patch_embed.conv2 = ConvNorm(width // 2, width, **stem)
        cast(Any, self.stages[-1]).downsample.conv2.conv.stride = (1, 1)
        for block in cast(Sequence[TinyVitBlock], blocks(self)):
            window = (block.window_size, block.window_size)
            block.attn = WindowAttention(
                block.dim, block.dim // block.num_heads, block.num_heads, attn_ratio=1, resolution=window
            )
        self.neck = nn.Sequential(
            nn.Conv2d(sizes.embed_dims[-1], dim, kernel_size=1, bias=False),
            LayerNorm2d(dim),
            nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(dim),
        )
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Embed images, [B, channels, S, S] to [B, dim, S / stride, S / stride]."""
        embedding: Tensor = self.neck(self.forward_features(images))
        return embedding

    def train(self, mode: bool = True) -> TinyViTEncoder:
        """As for every module, but batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class _GELUInPlace(nn.Module):
    """GELU without another tensor: every one of TinyViT follows a layer whose output nothing else reads.

    A quarter of the time on a CPU, where the first stage's tensors are larger than what the allocator keeps.
    """

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN is faster on the axes as they lie in memory: channels last
        torch.ops.aten.gelu_(x.permute(0, 2, 3, 1) if x.ndim == 4 else x)
        return x


def build(model: SAMModel, input_size: int, channels: int) -> TinyViTEncoder:
    """A TinyViT with random weights.

    Args:
        model: its ``encoder`` has TinyViTSizes.
        input_size: side S of the canvas in pixels.
        channels: of the image.

    Raises:
        ValueError: the stride does not divide the canvas, or it is not the one that the sizes give.
    """
    sizes = model.encoder
    if not isinstance(sizes, TinyViTSizes):
        raise ValueError(f"{model.name}: tiny_vit needs TinyViTSizes, got {type(sizes).__name__}")
    # two convolutions in the stem, and a merge of stride 2 before each stage but the first and the last
    stride = sizes.stem_stride**2 * 2 ** (len(sizes.depths) - 2)
    check_stride(model, stride, input_size)
    return TinyViTEncoder(sizes, channels=channels, dim=model.decoder.dim)


def rename(name: str) -> str:
    """Name of a tensor in a published checkpoint, without ``image_encoder.``, to its name in :class:`TinyViTEncoder`.

    The published names are those of TinyViT's authors: ``patch_embed.seq``, ``layers`` (where a merge belongs to the
    stage before it) and ``c`` for a convolution.

    Returns:
        An empty string for tensors that have no place here and are dropped: the classifier that MobileSAM's file holds
        (``norm_head``, ``head``), and the table of positions ``attention_bias_idxs`` that some files of TinyViT hold
        (timm computes it and does not save it; neither LiteMedSAM's nor MobileSAM's file has it).
    """
    if name.startswith(("norm_head.", "head.")) or name.endswith(".attention_bias_idxs"):
        return ""
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace("patch_embed.seq.2.", "patch_embed.conv2.")
    name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"stages.{int(found[1]) + 1}.downsample.", name)
    return re.sub(r"^layers\.", "stages.", name).replace(".c.", ".conv.")


def fit(encoder: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Fit the first kernel to the channels (:func:`fit_channels`); other tensors stay.

    Args:
        encoder: of :func:`build`.
        name: the encoder's own.
        tensor: published; the first kernel is [out, 3, k, k].
    """
    if name != _FIRST_KERNEL:
        return tensor
    return fit_channels(tensor, encoder.get_parameter(name).shape[1])


def patch_embedding(encoder: nn.Module) -> nn.Module:
    """The first convolution with its batch norm."""
    return encoder.get_submodule("patch_embed.conv1")


def blocks(encoder: nn.Module) -> Sequence[nn.Module]:
    """The blocks with attention: those of all stages but the first, which has convolutions only."""
    stages = cast(Any, encoder).stages
    return [block for stage in stages[1:] for block in stage.blocks]


def qkv_rows(attn: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``attn.qkv`` that give query, key and value, each int64 [dim], head by head.

    timm lays them out as (query, key, value) of the first head, of the second and so on.
    """
    attention = cast(Attention, attn)
    parts = [attention.key_dim, attention.key_dim, attention.val_dim]
    rows = torch.arange(attention.num_heads * sum(parts), device="cpu").view(attention.num_heads, sum(parts))
    query, key, value = (part.flatten() for part in rows.split(parts, dim=1))
    return query, key, value


def for_inference(encoder: nn.Module) -> FrozenEncoder:
    """A frozen copy with batch norm folded into the convolutions, channels last, in bfloat16 where that is native.

    LoRA is folded into the projections too; what else an adaptation added is copied as it is. Difference of
    LiteMedSAM's embedding, in its standard deviations: in float32 at most 2e-5; in bfloat16 0.04 on average and at most
    0.7 (the input of the golden vectors) and 0.6 (left atria in 25 stitched slices, correlation 0.998).
    """
    frozen = copy.deepcopy(encoder).requires_grad_(False).eval()
    fuse_projections(frozen)
    _replace_by_faster(frozen)
    return FrozenEncoder(frozen)


def _replace_by_faster(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            # not ConvNorm.fuse: its convolution lies on the CPU, wherever the weights are
            setattr(module, name, fuse_conv_bn_eval(child.conv, child.bn))
        elif isinstance(child, nn.GELU):
            setattr(module, name, _GELUInPlace())
        else:
            _replace_by_faster(child)


BACKBONE = Backbone(
    build=build,
    rename=rename,
    fit=fit,
    patch_embedding=patch_embedding,
    blocks=blocks,
    qkv_rows=qkv_rows,
    for_inference=for_inference,
)
