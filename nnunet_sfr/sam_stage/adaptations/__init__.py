"""The strategies of fine-tuning SAM by name, each a file. Importing this table does not import torch."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation
from nnunet_sfr.sam_stage.adaptations.adapter import ADAPTER
from nnunet_sfr.sam_stage.adaptations.decoder import DECODER
from nnunet_sfr.sam_stage.adaptations.few_shot import FEW_SHOT
from nnunet_sfr.sam_stage.adaptations.full import FULL
from nnunet_sfr.sam_stage.adaptations.lora import LORA

ADAPTATIONS: Mapping[str, Adaptation] = {
    adaptation.name: adaptation for adaptation in (DECODER, FEW_SHOT, LORA, ADAPTER, FULL)
}
"""Every strategy, by name."""


def find_adaptation(name: str) -> Adaptation:
    """The record of a strategy.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in ADAPTATIONS:
        raise ValueError(f"adaptation must be one of {', '.join(ADAPTATIONS)}, got {name!r}")
    return ADAPTATIONS[name]
