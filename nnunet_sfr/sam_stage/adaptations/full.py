"""Train image encoder and mask decoder (MedSAM v2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation, NoSettings

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


def prepare(sam: SegmentationSAM, settings: NoSettings) -> None:
    """Unfreeze the image encoder.

    Args:
        sam: changed in place.
        settings: none.
    """
    sam.image_encoder.requires_grad_(True)


FULL = Adaptation(
    name="full",
    summary="image encoder and mask decoder (MedSAM v2)",
    prepare=prepare,
    frozen_encoder=False,
    fits_random_weights=True,
    # MedSAM's rate; ten times as much is for modules that start from nothing
    fine_tuning={"learning_rate": 1e-4},
)
