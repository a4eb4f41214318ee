"""Train two bottlenecks in every block, and the mask decoder (MSA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation
from nnunet_sfr.setting_checks import require

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What there is to set for bottlenecks."""

    width_share: float = 0.25
    """Width of the bottlenecks as a share of the block's channels, above 0 and at most 1 (MSA's code)."""

    def __post_init__(self) -> None:
        require(0 < self.width_share <= 1, f"width_share must be above 0 and at most 1, got {self.width_share}")


def prepare(sam: SegmentationSAM, settings: AdapterSettings) -> None:
    """Put one bottleneck behind the attention and one beside the MLP of every block; a fresh one changes nothing.

    Args:
        sam: changed in place.
        settings: of the bottlenecks.
    """
    from nnunet_sfr.sam_stage.layers.bottleneck import AdaptedAttention, AdaptedMLP, Bottleneck

    block: Any
    for block in sam.backbone.blocks(sam.image_encoder):
        weight = block.attn.proj.weight
        channels = len(weight)
        width = max(1, round(settings.width_share * channels))
        behind, beside = (Bottleneck(channels, width).to(weight.device, weight.dtype) for _ in range(2))
        block.attn = AdaptedAttention(block.attn, behind)
        block.mlp = AdaptedMLP(block.mlp, beside)


ADAPTER = Adaptation(
    name="adapter",
    summary="two bottlenecks in every block of the encoder, and the mask decoder (MSA)",
    settings=AdapterSettings,
    prepare=prepare,
    frozen_encoder=False,
)
