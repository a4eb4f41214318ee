"""Train low-rank adapters on query and value of every block, and the mask decoder (SAMed)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation
from nnunet_sfr.setting_checks import require_at_least

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """What there is to set for LoRA."""

    rank: int = 4
    """Rank of the adapters; their scale alpha equals the rank (SFR code)."""

    def __post_init__(self) -> None:
        require_at_least("rank", self.rank, 1)


def prepare(sam: SegmentationSAM, settings: LoRASettings) -> None:
    """Put adapters on the query and value projection of every block: W x + B A x, with B = 0 at the start.

    alpha equals the rank, so that the product is not scaled (SAMed has no scale at all:
    https://github.com/hitachinsk/SAMed/blob/e351840481f51d0c7dee50007f29d02197b63d99/sam_lora_image_encoder.py).

    Args:
        sam: changed in place.
        settings: the rank.
    """
    # peft takes seconds to import, and the table of adaptations must not import torch.
    from peft import LoraConfig, inject_adapter_in_model

    from nnunet_sfr.sam_stage.layers.split_qkv import SplitQKV

    for block in sam.backbone.blocks(sam.image_encoder):
        attn: Any = block.attn
        attn.qkv = SplitQKV(attn.qkv, sam.backbone.qkv_rows(attn)).requires_grad_(False)
    rank = settings.rank
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=["q", "v"])
    inject_adapter_in_model(config, sam.image_encoder)


LORA = Adaptation(
    name="lora",
    summary="low-rank adapters on query and value of every block, and the mask decoder (SAMed)",
    settings=LoRASettings,
    prepare=prepare,
    frozen_encoder=False,
)
