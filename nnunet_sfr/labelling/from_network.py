"""Pseudo-labels from a network in memory, by nnU-Net's own sliding window: for trainers that label while they train.

``label_pool(store, dataset, NetworkLabeller(...), identifiers)`` of :mod:`nnunet_sfr.labelling.filling` labels those
cases that the store does not have yet.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.label_decision import LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import Prediction, predict_mirrored
from nnunet_sfr.settings import PseudoLabelSettings


class NetworkLabeller:
    """Predicts preprocessed images with a network of nnU-Net's.

    It leaves the network as it found it: weights, gradients, training mode, deep supervision; and it draws no random
    numbers. With DDP every rank predicts for itself.

    Args:
        network: (B, channels, ...) to (B, C, ...) logits, with or without deep supervision; the predictions follow its
            weights as they change.
        dataset: whose plan it was built for.
        settings: step between patches, and whether to mirror.
        device: to compute on; the network is moved there.
        mirror_axes: axes of the image (0 is D, or H in 2D) that may be mirrored, nnU-Net's
            ``inference_allowed_mirroring_axes``; None for none.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: SFRDataset,
        settings: PseudoLabelSettings,
        device: torch.device,
        *,
        mirror_axes: tuple[int, ...] | None,
    ) -> None:
        # DDP's own forward talks to the other ranks, which may have more or fewer cases to predict
        self._network = network.module if isinstance(network, DistributedDataParallel) else network
        benchmark = torch.backends.cudnn.benchmark
        self._predictor = make_predictor(settings, device)
        torch.backends.cudnn.benchmark = benchmark  # which is the training's business
        with _silence():
            self._predictor.manual_initialization(
                self._network,
                dataset.plans_manager,
                dataset.configuration_manager,
                None,
                dataset.dataset_json,
                "",
                mirror_axes or None,
            )
        # with nnUNet_compile set, nnU-Net has wrapped it: a few cases would not pay for the compilation
        self._predictor.network = self._network

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

    def probabilities(self, image: torch.Tensor) -> torch.Tensor:
        """Head probabilities of a preprocessed image.

        Args:
            image: (channels, D, H, W); a 2D network sees it slice by slice.

        Returns:
            (C, D, H, W) on the CPU, float32: softmax over label values, or a sigmoid per region.
        """
        with _predicting(self._network):
            logits = self._predictor.predict_sliding_window_return_logits(image)
        probabilities: torch.Tensor = self._predictor.label_manager.apply_inference_nonlin(logits.cpu())
        return probabilities

    def case_probabilities(
        self, identifier: str, image: Any, properties: Mapping[str, Any], *, mirrored: bool
    ) -> Iterator[Prediction]:
        """:meth:`probabilities` of a case of the pool, and of its mirror images.

        Args:
            identifier: of the case.
            image: preprocessed, (channels, D, H, W).
            properties: of the preprocessed case.
            mirrored: whether those of the mirrored images follow.
        """
        array = torch.from_numpy(image[:])
        yield Prediction(self.probabilities(array))
        if mirrored:
            with without_mirroring(self._predictor):
                yield from predict_mirrored(self.probabilities, array, mirrored_axes(self._predictor))


def make_predictor(settings: PseudoLabelSettings, device: torch.device) -> nnUNetPredictor:
    """nnU-Net's predictor, without its progress bars and its remark that CPUs are no GPUs.

    Args:
        settings: step between patches, and whether to mirror.
        device: to compute on.
    """
    with _silence():
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


def _silence() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(io.StringIO())


@contextmanager
def _predicting(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without deep supervision, and afterwards every module as it was."""
    modes = [(module, module.training) for module in network.modules()]
    supervised = [module for module in network.modules() if getattr(module, "deep_supervision", None) is True]
    network.eval()
    for module in supervised:
        module.deep_supervision = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for module in supervised:
            module.deep_supervision = True  # type: ignore[assignment]
