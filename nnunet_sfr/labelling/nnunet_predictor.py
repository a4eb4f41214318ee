"""nnU-Net's predictor as a labeller has it: silent, and with nnU-Net's own rules for averages and labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_sfr.label_decision import LARGEST_PROBABILITY
from nnunet_sfr.settings import PseudoLabelSettings
from nnunet_sfr.silence import without_printing


class PredictorLabeller:
    """What all labellers share that predict with nnU-Net: how probabilities become labels.

    Args:
        predictor: initialised with a network and its plan.
    """

    def __init__(self, predictor: nnUNetPredictor) -> None:
        self._predictor = predictor

    @property
    def regions(self) -> bool:
        has_regions: bool = self._predictor.label_manager.has_regions
        return has_regions

    @property
    def average(self) -> bool:
        """Never: nnU-Net averages over mirrored images itself if its setting says so."""
        return False

    @property
    def decision(self) -> str:
        """nnU-Net's own rule."""
        return LARGEST_PROBABILITY


def make_predictor(settings: PseudoLabelSettings, device: torch.device) -> nnUNetPredictor:
    """nnU-Net's predictor, without its progress bars and its remark that CPUs are no GPUs.

    Args:
        settings: step between patches, and whether to mirror.
        device: to compute on.
    """
    with without_printing():
        return nnUNetPredictor(
            tile_step_size=settings.tile_step_size,
            use_gaussian=True,
            use_mirroring=settings.use_mirroring,
            perform_everything_on_device=device.type == "cuda",
            device=device,
            verbose=False,
            allow_tqdm=False,
        )


def mirrored_axes(predictor: nnUNetPredictor) -> tuple[int, ...]:
    """Axes of a preprocessed image (channels, D, H, W) along which the model was trained to mirror (D is 1)."""
    first = 1 if len(predictor.configuration_manager.patch_size) == 3 else 2  # a 2D network knows H and W alone
    return tuple(first + axis for axis in predictor.allowed_mirroring_axes or ())


@contextmanager
def without_mirroring(predictor: nnUNetPredictor) -> Iterator[None]:
    """A predictor that averages over mirror images would say the same of all of them."""
    before, predictor.use_mirroring = predictor.use_mirroring, False
    try:
        yield
    finally:
        predictor.use_mirroring = before
