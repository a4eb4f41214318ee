"""The intensities that a SAM was trained with, made from nnU-Net's preprocessed values case by case.

SAM's own models take the values as nnU-Net normalises them (paper). Models of the MedSAM family saw images in [0, 1]:
CT by a window in Hounsfield units, everything else between the 0.5 and 99.5 percentiles of the image
(https://github.com/bowang-lab/MedSAM, the preprocessing of its training data). Limits belong to a case and not to a
patch, so that training and labelling see the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_sfr.ct_windows import CT_SCHEME, preprocessed_window
from nnunet_sfr.data.datasets import LoadableCases
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.sam_models import find_model

PERCENTILES = (0.5, 99.5)
AUGMENTATION_FACTOR = 4.0
"""nnU-Net's augmentation expects a standard deviation near 1; images in [0, 1] have about a quarter of it."""


class Intensities(Protocol):
    """How the preprocessed values of a case become those that a model was trained with."""

    def for_case(self, image: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """The function that maps any part (channels, ...) of a case's image (channels, D, H, W)."""

    @property
    def augmentation_factor(self) -> float:
        """By which mapped values are multiplied while nnU-Net augments them."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which augmented values are clipped; None for no limits."""


@dataclass(frozen=True)
class AsPreprocessed:
    """nnU-Net's normalised values as they are."""

    augmentation_factor: float = 1.0
    limits: tuple[float, float] | None = None

    def for_case(self, image: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        return _unchanged


@dataclass(frozen=True)
class ZeroToOne:
    """Values in [0, 1]: CT channels by a window, others between percentiles of the case.

    Args:
        windows: (low, high) in preprocessed values for each CT channel, None for channels that are not CT.
    """

    windows: tuple[tuple[float, float] | None, ...]
    augmentation_factor: float = AUGMENTATION_FACTOR
    limits: tuple[float, float] | None = (0.0, 1.0)

    def for_case(self, image: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        pairs = [
            window if window is not None else tuple(np.percentile(channel, PERCENTILES))
            for window, channel in zip(self.windows, image, strict=True)
        ]
        lows, highs = (np.array(ends, dtype=np.float32) for ends in zip(*pairs, strict=True))
        return lambda part: _to_unit(part, lows, highs)


INTENSITIES: Mapping[str, Callable[[SFRDataset], Intensities]] = {
    "as_preprocessed": lambda dataset: AsPreprocessed(),
    "zero_to_one": lambda dataset: ZeroToOne(ct_windows(dataset)),
}
"""What ``SAMModel.intensities`` can name."""


def intensities_of(dataset: SFRDataset) -> Intensities:
    """The intensities of the SAM that the data set's plan names."""
    return INTENSITIES[find_model(dataset.settings.sam.model).intensities](dataset)


def ct_windows(dataset: SFRDataset) -> tuple[tuple[float, float] | None, ...]:
    """``sam.window`` in preprocessed values for each CT channel, None for other channels.

    nnU-Net normalises CT as (HU - mean) / standard deviation with numbers of the whole data set, after clipping to the
    percentiles of the foreground; its clipping stays.
    """
    schemes: Sequence[str] = dataset.configuration["normalization_schemes"]
    properties = dataset.foreground_intensities
    return tuple(
        preprocessed_window(dataset.settings.sam.window, properties[str(channel)]) if scheme == CT_SCHEME else None
        for channel, scheme in enumerate(schemes)
    )


class CasesWithIntensities:
    """Cases whose images carry a model's intensities, times the factor for augmentation; read part by part.

    Args:
        cases: preprocessed.
        intensities: of the model.
    """

    def __init__(self, cases: LoadableCases, intensities: Intensities) -> None:
        self._cases = cases
        self._intensities = intensities
        self._maps: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {}
        self.identifiers: Sequence[str] = cases.identifiers

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, D, H, W), label map (1, D, H, W), None, properties."""
        image, labels, previous, properties = self._cases.load_case(identifier)
        if identifier not in self._maps:
            self._maps[identifier] = self._intensities.for_case(image[:])
        factor, mapped = self._intensities.augmentation_factor, self._maps[identifier]
        return _MappedImage(image, lambda part: factor * mapped(part)), labels, previous, properties


def after_augmentation(patch: torch.Tensor, intensities: Intensities) -> torch.Tensor:
    """The model's intensities from augmented values of :class:`CasesWithIntensities`, any shape.

    Args:
        patch: of any shape.
        intensities: of the model.
    """
    if intensities.limits is None:
        return patch
    return (patch / intensities.augmentation_factor).clamp(*intensities.limits)


class _MappedImage:
    """An image on disk whose parts are mapped when they are read."""

    def __init__(self, image: Any, mapped: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._image, self._mapped = image, mapped
        self.shape, self.dtype, self.ndim = image.shape, np.dtype(np.float32), len(image.shape)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        return self._mapped(np.asarray(self._image[key], dtype=np.float32))


def _unchanged(part: NDArray[np.float32]) -> NDArray[np.float32]:
    return part


def _to_unit(part: NDArray[np.float32], lows: NDArray[np.float32], highs: NDArray[np.float32]) -> NDArray[np.float32]:
    shape = (-1, *[1] * (part.ndim - 1))
    # an image of one value has no range; all of it becomes 0
    span = np.maximum(highs - lows, np.finfo(np.float32).tiny).reshape(shape)
    result: NDArray[np.float32] = np.clip((part - lows.reshape(shape)) / span, 0, 1)
    return result
