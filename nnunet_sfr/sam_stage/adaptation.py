"""What of SAM is trained: adapters on query and value (SAMed), the decoder alone (MedSAM v1), or everything."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nnunet_sfr.sam_stage.sam import UNUSED_MODULES, SegmentationSAM
from nnunet_sfr.settings import SAMSettings

_TOKEN_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
"""Random and not a parameter: without it a network that was trained from scratch cannot be rebuilt."""


class SplitQKV(nn.Module):
    """SAM's fused projection as three linear layers, so that query and value can have adapters of their own.

    Args:
        fused: the linear layer from dim to 3 * dim whose output is query, key and value one after the other.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.q, self.k, self.v = (_third(fused, index) for index in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        """From [..., dim] to [..., 3 * dim], as the fused layer does."""
        return torch.cat((self.q(tokens), self.k(tokens), self.v(tokens)), dim=-1)


def adapt(sam: SegmentationSAM, settings: SAMSettings) -> SegmentationSAM:
    """Choose the trainable parameters and, for LoRA, put the adapters in. Call it once, after the weights are loaded.

    The mask decoder and the no-mask embedding are always trained, and so is the patch embedding where the number of
    input channels asks for another one than the official; the parts that no forward reads never are.

    Args:
        sam: changed in place.
        settings: its ``adaptation`` is ``lora``, ``decoder`` or ``full``.

    Returns:
        ``sam`` itself.
    """
    sam.requires_grad_(True)
    if settings.adaptation != "full":
        sam.image_encoder.requires_grad_(False)
    if settings.adaptation == "lora":
        _insert_lora(sam.image_encoder, rank=settings.lora_rank)
    if sam.has_own_patch_embedding:
        sam.image_encoder.patch_embed.requires_grad_(True)
    for name in UNUSED_MODULES:
        sam.get_submodule(name).requires_grad_(False)
    return sam


def adapter_state(sam: SegmentationSAM) -> dict[str, Tensor]:
    """What fine-tuning changes: every trainable parameter, and the random positions of the tokens.

    With the official checkpoint (if the model has one) and the same settings it rebuilds the network.

    Returns:
        Copies on the CPU, by the names in the network's state dict.
    """
    state = sam.state_dict()
    return {name: state[name].detach().to("cpu", copy=True) for name in _adapter_names(sam)}


def load_adapter_state(sam: SegmentationSAM, state: Mapping[str, Tensor]) -> None:
    """Put back what :func:`adapter_state` gave, into a network that was built and adapted in the same way.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape; nothing has been changed then.
    """
    names = _adapter_names(sam)
    own = sam.state_dict()
    missing = [name for name in names if name not in state]
    unknown = sorted(set(state) - set(names))
    if missing or unknown:
        kind, name = ("lacks", missing[0]) if missing else ("has the unknown", unknown[0])
        raise ValueError(f"the adapter {kind} {name}: it was saved with another model or adaptation")
    for name in names:
        if state[name].shape != own[name].shape:
            raise ValueError(
                f"the adapter's {name} has the shape {list(state[name].shape)}, the network's {list(own[name].shape)}"
            )
    sam.load_state_dict(dict(state), strict=False)


def _adapter_names(sam: SegmentationSAM) -> list[str]:
    return [*(name for name, parameter in sam.named_parameters() if parameter.requires_grad), _TOKEN_POSITIONS]


def _insert_lora(encoder: nn.Module, *, rank: int) -> None:
    """LoRA on the query and value projection of every block: W x + B A x, with B = 0 at the start.

    alpha equals the rank, so that the product is not scaled (SAMed has no scale at all:
    https://github.com/hitachinsk/SAMed/blob/e351840481f51d0c7dee50007f29d02197b63d99/sam_lora_image_encoder.py).
    """
    # peft takes seconds to import, and only this adaptation needs it.
    from peft import LoraConfig, inject_adapter_in_model

    for block in encoder.blocks:  # type: ignore[union-attr]
        block.attn.qkv = SplitQKV(block.attn.qkv).requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=["q", "v"])
    inject_adapter_in_model(config, encoder)


def _third(fused: nn.Linear, index: int) -> nn.Linear:
    """Query (0), key (1) or value (2) of a fused projection, with a copy of its weights."""
    dim = fused.in_features
    part = nn.Linear(dim, dim, device=fused.weight.device, dtype=fused.weight.dtype)
    rows = slice(index * dim, (index + 1) * dim)
    with torch.no_grad():
        part.weight.copy_(fused.weight[rows])
        part.bias.copy_(fused.bias[rows])
    return part
