"""Steps and batches of SAM's fine-tuning, as planning chooses them."""

from __future__ import annotations

import pytest

from nnunet_sfr.planning.schedule import choose_fine_tuning
from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS

LITE_MEDSAM = MODELS["lite_medsam"]


@pytest.mark.parametrize(("labelled", "iterations"), [(1, 400), (2, 566), (4, 800), (16, 1600), (1000, 6000)])
def test_a_decoder_takes_more_steps_for_more_cases(labelled: int, iterations: int) -> None:
    for adaptation in ("decoder", "few_shot"):
        for model in ("lite_medsam", "vit_b"):
            chosen = choose_fine_tuning(MODELS[model], ADAPTATIONS[adaptation], 256, labelled)
            assert chosen.iterations == iterations


def test_other_schedules_are_the_records() -> None:
    assert choose_fine_tuning(MODELS["vit_b"], ADAPTATIONS["lora"], 1024, 16).iterations == 6000
    assert choose_fine_tuning(MODELS["vit_tiny"], ADAPTATIONS["full"], 256, 16).iterations == 2000
    assert choose_fine_tuning(LITE_MEDSAM, ADAPTATIONS["lora"], 256, 16).iterations == 400


def test_an_encoder_that_runs_in_every_step_takes_what_was_measured() -> None:
    for adaptation, iterations in (("adapter", 600), ("full", 150)):
        chosen = choose_fine_tuning(LITE_MEDSAM, ADAPTATIONS[adaptation], 256, 4)
        assert (chosen.iterations, chosen.batch_size, chosen.weight_decay) == (iterations, 2, 0.05)
        assert choose_fine_tuning(MODELS["vit_b"], ADAPTATIONS[adaptation], 1024, 4).iterations == 6000


def test_published_weights_are_trained_gently_and_random_ones_are_not() -> None:
    rates = {
        (model, adaptation): choose_fine_tuning(MODELS[model], ADAPTATIONS[adaptation], 256, 4).learning_rate
        for model, adaptation in (("lite_medsam", "full"), ("vit_b", "full"), ("vit_tiny", "full"), ("vit_b", "lora"))
    }
    assert rates == {
        ("lite_medsam", "full"): 1e-4,
        ("vit_b", "full"): 1e-4,
        ("vit_tiny", "full"): 1e-3,
        ("vit_b", "lora"): 1e-3,
    }


def test_large_canvases_come_in_smaller_batches() -> None:
    batches = [
        choose_fine_tuning(LITE_MEDSAM, ADAPTATIONS["decoder"], canvas, 1).batch_size for canvas in (64, 256, 512)
    ]
    assert batches == [4, 4, 2]
