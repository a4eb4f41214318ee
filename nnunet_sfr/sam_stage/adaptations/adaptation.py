"""What planner, settings, fine-tuning and doctor ask of a way to adapt SAM. No torch here: commands answer ``-h``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nnunet_sfr.sam_stage.input_channels import has_own_first_layer

if TYPE_CHECKING:
    from nnunet_sfr.sam_stage.sam import SegmentationSAM


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """An adaptation that has nothing to set."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One strategy of fine-tuning (paper, section III-B2)."""

    name: str
    summary: str
    """One line for ``-h`` and the docs."""
    settings: type = NoSettings
    """Frozen dataclass of its own settings, ``sam.adaptation_settings`` in the SFR plan; it raises ValueError."""
    prepare: Callable[[SegmentationSAM, Any], None]
    """(SAM, settings): put modules in and unfreeze what is trained. Called once, after the weights are loaded; the
    encoder is frozen then, mask decoder and no-mask embedding are trainable."""
    frozen_encoder: bool
    """Whether nothing in the encoder is trained where its published first layer fits (:meth:`freezes_encoder`)."""
    fits_random_weights: bool = False
    """Whether it suits a model that is trained from scratch."""
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the section ``fine_tuning`` that planning writes, over those of the model; a model without weights
    has its own alone."""
    steps_grow: bool = False
    """Whether ``iterations`` are those of one labelled case, and grow with their number
    (:mod:`nnunet_sfr.planning.schedule`)."""

    def freezes_encoder(self, in_channels: int) -> bool:
        """Whether nothing in the encoder is trained, so that an image needs to be embedded only once.

        Args:
            in_channels: of the images.
        """
        return self.frozen_encoder and not has_own_first_layer(in_channels)
