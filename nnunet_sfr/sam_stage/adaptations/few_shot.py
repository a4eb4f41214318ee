"""Prompt the mask decoder with embeddings of the labelled regions (Xie et al., SAM Fewshot Finetuning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_sfr.sam_models import FEW_STEPS
from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation
from nnunet_sfr.setting_checks import require_at_least

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


@dataclass(frozen=True, kw_only=True)
class FewShotSettings:
    """Settings of the adaptation ``few_shot``."""

    prototypes_per_class: int = 1
    """Mean embeddings of each class that prompt the decoder; above 1 they are the centres that k-means finds."""

    def __post_init__(self) -> None:
        require_at_least("prototypes_per_class", self.prototypes_per_class, 1)


def prepare(sam: SegmentationSAM, settings: FewShotSettings) -> None:
    """Give SAM a place for prototypes; fine-tuning fills it before its first step.

    Args:
        sam: changed in place.
        settings: how many prototypes a class has.
    """
    from nnunet_sfr.sam_stage.layers.prototypes import PrototypePrompts

    sam.prompts = PrototypePrompts(sam.num_classes * settings.prototypes_per_class, sam.model.decoder.dim)


FEW_SHOT = Adaptation(
    name="few_shot",
    summary="the mask decoder, prompted by mean embeddings of the labelled regions, every image of 1 or 3 channels is "
    "embedded once",
    settings=FewShotSettings,
    prepare=prepare,
    frozen_encoder=True,
    fine_tuning=FEW_STEPS,
    steps_grow=True,
)
