"""Train the mask decoder alone (MedSAM v1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunet_sfr.sam_models import FEW_STEPS
from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation, NoSettings

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


def prepare(sam: SegmentationSAM, settings: NoSettings) -> None:
    """Nothing to add: the mask decoder is trained in every adaptation.

    Args:
        sam: stays as it is.
        settings: none.
    """


DECODER = Adaptation(
    name="decoder",
    summary="the mask decoder alone (MedSAM v1), every image of 1 or 3 channels is embedded once",
    prepare=prepare,
    frozen_encoder=True,
    fine_tuning=FEW_STEPS,
    steps_grow=True,
)
