"""Which SAM to plan where there is no GPU. No torch here."""

from __future__ import annotations

from nnunet_sfr.sam_models import MODELS, find_model
from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.settings import SAMSettings


def lighter_than(settings: SAMSettings) -> str | None:
    """The options of planning for a SAM that a CPU fine-tunes in minutes.

    Args:
        settings: of the plan that is there.

    Returns:
        Such as ``-adaptation few_shot``; None where the plan has such a SAM already.
    """
    model = find_model(settings.model)
    if model.needs_gpu:
        lighter = next(model for model in MODELS.values() if not model.needs_gpu)
        return f"-sam {lighter.name} -adaptation {lighter.adaptation}"
    # a model without weights is small, and all of it has to learn
    trains_encoder = model.weights is not None and not find_adaptation(settings.adaptation).frozen_encoder
    return f"-adaptation {model.adaptation}" if trains_encoder and settings.adaptation != model.adaptation else None
