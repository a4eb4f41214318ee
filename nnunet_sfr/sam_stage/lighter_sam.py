"""Which SAM takes long to fine-tune where there is no GPU, and which to plan instead. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_sfr.sam_models import MODELS, find_model
from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.sam_stage.input_channels import has_own_first_layer
from nnunet_sfr.settings import SAMSettings


@dataclass(frozen=True)
class SlowSAM:
    """What there is to say of a SAM that a CPU does not fine-tune in minutes."""

    lighter: str | None
    """Options of planning for a lighter one, such as ``-adaptation few_shot``; None where there is none."""
    why_hours: str | None
    """Why that one, or this one if there is none, takes hours; None where it takes minutes."""

    @property
    def sentence_end(self) -> str:
        """What follows "is slow on a CPU"."""
        if self.lighter is None:
            return f": {self.why_hours}"
        takes = "takes minutes" if self.why_hours is None else f"is faster, but {self.why_hours}"
        return f"; planned with {self.lighter} it {takes}"


def slow_on_cpu(settings: SAMSettings, in_channels: int) -> SlowSAM | None:
    """Whether a CPU takes long to fine-tune the SAM of a plan.

    Args:
        settings: of the plan that is there.
        in_channels: of the images.

    Returns:
        None where it takes minutes.
    """
    model = find_model(settings.model)
    if model.needs_gpu:
        lighter = next(model for model in MODELS.values() if not model.needs_gpu)
        return SlowSAM(f"-sam {lighter.name} -adaptation {lighter.adaptation}", why_hours(lighter.name, in_channels))
    # a model without weights is small, and all of it has to learn
    if model.weights is None or find_adaptation(settings.adaptation).freezes_encoder(in_channels):
        return None
    hours = why_hours(model.name, in_channels)
    if hours is not None:
        return SlowSAM(None, hours)
    return SlowSAM(f"-adaptation {model.adaptation}", None) if settings.adaptation != model.adaptation else None


def why_hours(model: str, in_channels: int) -> str | None:
    """Why a CPU takes hours for a model that it fine-tunes in minutes with other numbers of channels.

    Args:
        model: name of one that does not need a GPU.
        in_channels: of the images.

    Returns:
        None where these channels make no difference.
    """
    if has_own_first_layer(in_channels) and find_adaptation(find_model(model).adaptation).frozen_encoder:
        return f"with {in_channels} channels the encoder learns too, which takes hours"
    return None
