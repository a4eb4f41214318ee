"""How long planning lets SAM learn, and from how many mosaics in a step."""

from __future__ import annotations

import math
from dataclasses import replace

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.adaptations.adaptation import Adaptation
from nnunet_sfr.settings import FineTuningSettings


def choose_fine_tuning(
    model: SAMModel, adaptation: Adaptation, canvas_size: int, num_labelled: int
) -> FineTuningSettings:
    """What the records say, with fewer mosaics in a step where they are large, and more steps for more cases.

    A decoder that sees more cases has more to learn: with the steps that suit one left atrium it still underfits four
    (docs/results.md). Steps grow with the root of the number of labelled cases, up to the setting's own default.

    Args:
        model: SAM's record.
        adaptation: how it is fine-tuned.
        canvas_size: side of the mosaic in pixels.
        num_labelled: labelled cases of the data set.
    """
    # what suits published weights is not what a network needs that starts from random ones
    of_adaptation = {} if model.weights is None else adaptation.fine_tuning
    of_both = model.fine_tuning_with.get(adaptation.name, {})
    settings = FineTuningSettings(**{**model.fine_tuning, **of_adaptation, **of_both})
    iterations = settings.iterations
    if adaptation.steps_grow:
        iterations = min(FineTuningSettings.iterations, round(iterations * math.sqrt(num_labelled)))
    batch_size = model.batch_size(settings.batch_size, canvas_size)
    return replace(settings, iterations=iterations, batch_size=batch_size)
