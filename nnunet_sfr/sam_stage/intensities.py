"""The intensities that a SAM was trained with, made from nnU-Net's preprocessed values case by case.

SAM's own models take the values as nnU-Net normalises them (paper). Models of the MedSAM family saw images in [0, 1]:
CT by a window in Hounsfield units, everything else between the 0.5 and 99.5 percentiles of the image
(https://github.com/bowang-lab/MedSAM, the preprocessing of its training data). Limits belong to a case and not to a
patch, so that training and labelling see the same values. Where nnU-Net normalises inside a mask (brain MRI, for one)
it leaves 0 outside, which is the mean inside; those models saw black there, and percentiles of what lies inside.
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


Mapped = Callable[[NDArray[np.float32], NDArray[Any] | None], NDArray[np.float32]]
"""From any part (channels, ...) of a case's image, and the same part (1, ...) of its mask, to the model's values."""


class Intensities(Protocol):
    """How the preprocessed values of a case become those that a model was trained with."""

    def for_case(self, image: NDArray[np.float32], mask: NDArray[Any] | None) -> Mapped:
        """The function that maps a case.

        Args:
            image: (channels, D, H, W), preprocessed.
            mask: (1, D, H, W), negative outside the non-zero mask, as in nnU-Net's preprocessed segmentations; None
                where no channel is :attr:`masked`.
        """

    @property
    def masked(self) -> tuple[int, ...]:
        """Channels, from 0, whose values depend on the mask: they were normalised inside it."""

    @property
    def augmentation_factor(self) -> float:
        """By which mapped values are multiplied while nnU-Net augments them."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which augmented values are clipped; None for no limits."""

    @property
    def limited_by_case(self) -> tuple[int, ...]:
        """Channels, from 0, of which each case has limits of its own, which become 0 and 1."""


@dataclass(frozen=True)
class AsPreprocessed:
    """nnU-Net's normalised values as they are."""

    masked: tuple[int, ...] = ()
    augmentation_factor: float = 1.0
    limits: tuple[float, float] | None = None
    limited_by_case: tuple[int, ...] = ()

    def for_case(self, image: NDArray[np.float32], mask: NDArray[Any] | None) -> Mapped:
        return _unchanged


@dataclass(frozen=True)
class ZeroToOne:
    """Values in [0, 1]: CT channels by a window, others between percentiles of the case.

    Args:
        windows: (low, high) in preprocessed values for each CT channel, None for channels that are not CT.
        masked: channels, from 0, that nnU-Net normalised inside the mask; they are 0 outside.
    """

    windows: tuple[tuple[float, float] | None, ...]
    masked: tuple[int, ...] = ()
    augmentation_factor: float = AUGMENTATION_FACTOR
    limits: tuple[float, float] | None = (0.0, 1.0)

    @property
    def limited_by_case(self) -> tuple[int, ...]:
        return tuple(index for index, window in enumerate(self.windows) if window is None)

    def for_case(self, image: NDArray[np.float32], mask: NDArray[Any] | None) -> Mapped:
        inside = None if mask is None else mask[0] >= 0
        pairs = [
            window if window is not None else self._percentiles(index, channel, inside)
            for index, (window, channel) in enumerate(zip(self.windows, image, strict=True))
        ]
        lows, highs = (np.array(ends, dtype=np.float32) for ends in zip(*pairs, strict=True))
        return _BetweenLimits(lows, highs, self.masked)

    def _percentiles(
        self, index: int, channel: NDArray[np.float32], inside: NDArray[np.bool_] | None
    ) -> tuple[float, float]:
        low, high = np.percentile(normalised_voxels(channel, index, self.masked, inside), PERCENTILES)
        return float(low), float(high)


@dataclass(frozen=True)
class _BetweenLimits:
    """What :class:`ZeroToOne` does to the parts of a case; nnU-Net's worker processes get it pickled.

    Args:
        lows, highs: of each channel, which become 0 and 1.
        masked: channels that are 0 outside the mask.
    """

    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    masked: tuple[int, ...]

    def __call__(self, part: NDArray[np.float32], mask: NDArray[Any] | None) -> NDArray[np.float32]:
        result = _to_unit(part, self.lows, self.highs)
        if mask is not None:
            for index in self.masked:
                result[index][mask[0] < 0] = 0
        return result


INTENSITIES: Mapping[str, Callable[[SFRDataset], Intensities]] = {
    "as_preprocessed": lambda dataset: AsPreprocessed(),
    "zero_to_one": lambda dataset: ZeroToOne(ct_windows(dataset), masked_channels(dataset)),
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


def masked_channels(dataset: SFRDataset) -> tuple[int, ...]:
    """Channels, from 0, that nnU-Net normalises inside the non-zero mask alone."""
    return tuple(index for index, masked in enumerate(dataset.configuration_manager.use_mask_for_norm) if masked)


def normalised_voxels(
    channel: NDArray[np.float32], index: int, masked: Sequence[int], inside: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """What a channel's range and median are taken of: all of it, or what lies inside the mask if normalised there.

    Args:
        channel: (D, H, W).
        index: of the channel, from 0.
        masked: channels that nnU-Net normalised inside the mask.
        inside: (D, H, W); None where no channel is masked.
    """
    return channel[inside] if index in masked and inside is not None and inside.any() else channel


def intensities_of_case(intensities: Intensities, image: NDArray[np.float32], mask: Any) -> NDArray[np.float32]:
    """A whole case as a model wants it.

    Args:
        intensities: of the model.
        image: (channels, D, H, W), preprocessed.
        mask: (1, D, H, W), negative outside the non-zero mask; read by ``mask[:]`` where it is needed.
    """
    read = mask[:] if intensities.masked else None
    return intensities.for_case(image, read)(image, read)


class CasesWithIntensities:
    """Cases whose images carry a model's intensities, times the factor for augmentation; read part by part.

    Args:
        cases: preprocessed.
        intensities: of the model.
    """

    def __init__(self, cases: LoadableCases, intensities: Intensities) -> None:
        self._cases = cases
        self._intensities = intensities
        self._maps: dict[str, Mapped] = {}
        self.identifiers: Sequence[str] = cases.identifiers

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, D, H, W), label map (1, D, H, W), None, properties."""
        image, labels, previous, properties = self._cases.load_case(identifier)
        mask = labels if self._intensities.masked else None
        if identifier not in self._maps:
            self._maps[identifier] = self._intensities.for_case(image[:], None if mask is None else mask[:])
        mapped = _MappedImage(image, mask, self._maps[identifier], self._intensities.augmentation_factor)
        return mapped, labels, previous, properties


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

    def __init__(self, image: Any, mask: Any, mapped: Mapped, factor: float) -> None:
        self._image, self._mask, self._mapped, self._factor = image, mask, mapped, factor
        self.shape, self.dtype, self.ndim = image.shape, np.dtype(np.float32), len(image.shape)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        mask = None if self._mask is None else np.asarray(self._mask[key])
        return self._factor * self._mapped(np.asarray(self._image[key], dtype=np.float32), mask)


def _unchanged(part: NDArray[np.float32], mask: NDArray[Any] | None) -> NDArray[np.float32]:
    return part


def _to_unit(part: NDArray[np.float32], lows: NDArray[np.float32], highs: NDArray[np.float32]) -> NDArray[np.float32]:
    shape = (-1, *[1] * (part.ndim - 1))
    # where nearly all voxels have one value there is no range: what lies above becomes 1, the rest 0
    with np.errstate(over="ignore"):
        span = np.maximum(highs - lows, np.finfo(np.float32).tiny).reshape(shape)
        result: NDArray[np.float32] = np.clip((part - lows.reshape(shape)) / span, 0, 1)
    return result
