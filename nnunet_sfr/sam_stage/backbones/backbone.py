"""What the SAM stage asks of an image encoder, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nnunet_sfr.sam_models import SAMModel


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A family of image encoders."""

    build: Callable[[SAMModel, int, int], nn.Module]
    """(model, input_size S, channels) to an encoder with random weights that maps [B, channels, S, S] to
    [B, decoder.dim, S / stride, S / stride]. The names of its parameters are our own."""

    rename: Callable[[str], str]
    """Name of a tensor of the encoder in a published checkpoint (without ``image_encoder.``) to its name in ours."""

    fit: Callable[[nn.Module, str, Tensor], Tensor]
    """(encoder, our name, published tensor) to the tensor fitted to the encoder's input size and channels; the tensor
    itself where nothing has to be fitted."""

    patch_embedding: Callable[[nn.Module], nn.Module]
    """The part of an encoder that sees the channels of the image; trained where they are not RGB."""

    blocks: Callable[[nn.Module], Sequence[nn.Module]]
    """Its transformer blocks, each with the attributes ``attn`` (which has the linear layers ``qkv`` and ``proj``) and
    ``mlp``; both take tokens [..., channels] as their one argument and give as many."""

    qkv_rows: Callable[[nn.Module], tuple[Tensor, Tensor, Tensor]]
    """Of a block's ``attn``: the rows of ``qkv`` that give query, key and value, each int64 [dim]."""

    for_inference: Callable[[nn.Module], nn.Module]
    """A copy without gradients that computes the same (within rounding) in less time."""


def check_stride(model: SAMModel, stride: int, input_size: int) -> None:
    """Compare the stride that an encoder's sizes give with the record's and with the canvas.

    Args:
        model: the record.
        stride: pixels of the image for one position of the embedding, along each axis.
        input_size: side of the image in pixels.

    Raises:
        ValueError: they do not fit.
    """
    if stride != model.stride:
        raise ValueError(f"{model.name}: its encoder has a stride of {stride}, not {model.stride}")
    if input_size < stride or input_size % stride:
        raise ValueError(f"the canvas must be a multiple of {model.name}'s stride, {stride}; got {input_size}")


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """Fit a first kernel to the channels of the images: each of n channels gets the mean over RGB times 3/n.

    n channels that are all alike then give what a grey image copied to RGB gave.

    Args:
        kernel: published, [out, 3, k, k].
        channels: n; with 3 the kernel stays as it is.
    """
    rgb = kernel.shape[1]
    if channels == rgb:
        return kernel
    return kernel.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (rgb / channels)
