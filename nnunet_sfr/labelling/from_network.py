"""Pseudo-labels from a network in memory, by nnU-Net's own sliding window: for trainers that label while they train.

``label_pool(store, dataset, NetworkLabeller(...), identifiers)`` of :mod:`nnunet_sfr.labelling.filling` labels those
cases that the store does not have yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.labelling.case_labels import LoadedCase, Prediction, predict_mirrored
from nnunet_sfr.labelling.nnunet_predictor import (
    PredictorLabeller,
    make_predictor,
    mirrored_axes,
    without_mirroring,
)
from nnunet_sfr.settings import PseudoLabelSettings
from nnunet_sfr.silence import without_printing


class NetworkLabeller(PredictorLabeller):
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
        super().__init__(make_predictor(settings, device))
        torch.backends.cudnn.benchmark = benchmark  # which is the training's business
        with without_printing():
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

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        """:meth:`probabilities` of a case of the pool, and of its mirror images.

        Args:
            case: preprocessed.
            mirrored: whether those of the mirrored images follow.
        """
        array = torch.from_numpy(case.image[:])
        yield Prediction(self.probabilities(array))
        if mirrored:
            with without_mirroring(self._predictor):
                yield from predict_mirrored(self.probabilities, array, mirrored_axes(self._predictor))


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
