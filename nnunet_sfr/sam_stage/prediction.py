"""From a volume to class probabilities: overlapping patches through the stitched SAM, blended by nnU-Net's weights.

The steps, the Gaussian and the padding are nnU-Net's. The sums are ours, in single precision: nnU-Net's own loop adds
in half precision, whose smallest number is of the size of the Gaussian's corners, so that probabilities there would be
wrong by up to 0.47 (1 % of the voxels of a volume of 31 x 40 x 37).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import autocast
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.sam_stage.slice_smoothing import sigma_in_slices, smooth_across_slices
from nnunet_sfr.settings import PseudoLabelSettings

SPATIAL_AXES = (2, 3, 4)


def smoothed_predictor(
    model: StitchedSAM, dataset: SFRDataset, settings: PseudoLabelSettings, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What gives a volume's probabilities, smoothed across the slices in which SAM sees it.

    Args:
        model: of one axis across which patches are cut into slices.
        dataset: whose volumes.
        settings: step between patches, mirroring, and how far to smooth.
        device: to compute on.

    Returns:
        From an image (channels, D, H, W) with SAM's intensities to (K, D, H, W).
    """
    patch_size, axis = model.geometry.patch_size, model.geometry.slice_axis
    rough = VolumePredictor(model, patch_size, settings, device)
    sigma = sigma_in_slices(settings.slice_smoothing, dataset.configuration_manager.spacing, axis)
    return lambda image: smooth_across_slices(rough.probabilities(image), axis, sigma)


class VolumePredictor:
    """Predicts whole volumes on the preprocessed grid.

    Args:
        model: (B, channels, D, H, W) patches to (B, K, D, H, W) logits; it is moved to ``device``.
        patch_size: (D, H, W) of the patches.
        settings: step between patches, and mirroring.
        device: to compute on.
    """

    def __init__(
        self,
        model: nn.Module,
        patch_size: tuple[int, int, int],
        settings: PseudoLabelSettings,
        device: torch.device,
    ) -> None:
        self._model = model.to(device)
        self.patch_size = patch_size
        self._settings = settings
        self._device = device

    @torch.inference_mode()
    def probabilities(self, image: torch.Tensor) -> torch.Tensor:
        """Class probabilities of a volume.

        Args:
            image: (channels, D, H, W) on the preprocessed grid, with the model's intensities.

        Returns:
            (K, D, H, W) on the CPU, float32, summing to 1 over K; NaN where SAM gives no finite numbers, which whoever
            knows the case refuses.
        """
        padded, inside = pad_nd_image(image, self.patch_size, "constant", {"value": 0}, True, None)
        # the sums stay on the CPU: classes times voxels of a large CT would not fit beside SAM on a GPU
        gaussian = compute_gaussian(self.patch_size, dtype=torch.float32, device=torch.device("cpu"))
        total: torch.Tensor | None = None
        weight = torch.zeros(padded.shape[1:])
        with _evaluating(self._model):
            for patch in self._patches(padded.shape[1:]):
                prediction = self._predict(padded[(slice(None), *patch)][None].to(self._device))[0].cpu()
                if total is None:
                    total = torch.zeros((prediction.shape[0], *padded.shape[1:]))
                total[(slice(None), *patch)] += prediction * gaussian
                weight[patch] += gaussian
        assert total is not None  # there is always one patch
        blended: torch.Tensor = total.div_(weight)[(slice(None), *inside[1:])]
        return blended

    def _patches(self, shape: torch.Size) -> Iterator[tuple[slice, ...]]:
        steps = compute_steps_for_sliding_window(shape, self.patch_size, self._settings.tile_step_size)
        for corner in itertools.product(*steps):
            yield tuple(slice(start, start + size) for start, size in zip(corner, self.patch_size, strict=True))

    def _predict(self, patch: torch.Tensor) -> torch.Tensor:
        """Softmax (1, K, D, H, W) of one patch, averaged over its mirror images if the settings say so."""
        mirrorings: list[tuple[int, ...]] = [()]
        if self._settings.use_mirroring:
            mirrorings = [axes for n in range(4) for axes in itertools.combinations(SPATIAL_AXES, n)]
        predictions = [torch.flip(self._softmax(torch.flip(patch, axes)), axes) for axes in mirrorings]
        return torch.stack(predictions).mean(dim=0)

    def _softmax(self, patch: torch.Tensor) -> torch.Tensor:
        with autocast(self._device):
            logits = self._model(patch)
        return torch.softmax(logits.float(), dim=1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
