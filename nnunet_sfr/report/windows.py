"""The grey windows in which the report shows images: in Hounsfield units for CT, percentiles of the case for others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_sfr.ct_windows import CT_SCHEME, CT_WINDOWS, HounsfieldWindow, choose_window, preprocessed_window
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError

PERCENTILES = (0.5, 99.5)
"""Of an image that is not CT: what is shown black and white."""
SAMPLED_VOXELS = 1_000_000
"""The percentiles are those of about so many voxels, at equal distances."""
LEAST_SHARE = 0.5
"""nnU-Net clips CT to the intensities of the labelled foreground. A window is offered if at least this share of it is
left; the one around the foreground always is."""


@dataclass(frozen=True)
class GreyWindow:
    """Which values are shown black and white.

    Args:
        key: short and unique, part of file names.
        name: for people.
        levels: (low, high) in preprocessed values; None for the percentiles of each case.
    """

    key: str
    name: str
    levels: tuple[float, float] | None

    def levels_of(self, image: np.ndarray) -> tuple[float, float]:
        """(low, high) for an image of any shape."""
        return percentile_levels(image) if self.levels is None else self.levels


def percentile_levels(image: np.ndarray) -> tuple[float, float]:
    """The values at ``PERCENTILES`` of an image of any shape."""
    values = image.ravel()[:: max(1, image.size // SAMPLED_VOXELS)]
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def choose_windows(dataset: SFRDataset, own: HounsfieldWindow | None = None) -> list[GreyWindow]:
    """The windows of the first channel, which is the one that is shown; the first window is the page's default.

    Args:
        dataset: planned.
        own: lowest and highest HU that the user wants to see.

    Raises:
        UserError: ``own`` is given and the channel is not CT, or it does not rise.
    """
    schemes = dataset.configuration["normalization_schemes"]
    if schemes[0] != CT_SCHEME:
        if own is not None:
            raise UserError(
                "--window is in Hounsfield units, and the first channel of this data set is not normalised as CT: "
                "leave it out"
            )
        return [GreyWindow("percentiles", "{:g} to {:g} percentile of each image".format(*PERCENTILES), None)]
    if own is not None and not own[0] < own[1]:
        raise UserError(f"--window {own[0]:g} {own[1]:g}: the first number must be the lower one")
    intensities = dataset.foreground_intensities
    properties, default = intensities["0"], choose_window(intensities, schemes)
    kept = (properties["percentile_00_5"], properties["percentile_99_5"])
    named = [("chosen", own)] if own is not None else []
    named += sorted(CT_WINDOWS.items(), key=lambda one: one[0] != default)
    return [
        GreyWindow(name.replace(" ", "_"), _describe(name, window), preprocessed_window(window, properties))
        for name, window in named
        if window == own or name == default or _share(window, kept) >= LEAST_SHARE
    ]


def _share(window: HounsfieldWindow, kept: HounsfieldWindow) -> float:
    """Part of a window that lies in what nnU-Net's clipping kept."""
    overlap = min(window[1], kept[1]) - max(window[0], kept[0])
    return max(overlap, 0.0) / (window[1] - window[0])


def _describe(name: str, window: HounsfieldWindow) -> str:
    low, high = (f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in window)
    return f"{name} ({low} to {high} HU)"
