"""Windows of the Hounsfield scale: which one SAM sees, and in which ones a CT can be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_sfr.settings import SAMSettings

HounsfieldWindow = tuple[float, float]
"""Lowest and highest Hounsfield units that are told apart."""

SOFT_TISSUE: HounsfieldWindow = SAMSettings.window
LUNG: HounsfieldWindow = (-1350.0, 150.0)
BONE: HounsfieldWindow = (-500.0, 1300.0)
"""Windows in HU with which MedSAM's training data were made (widths 400, 1500, 1800 around 40, -600, 400)."""
CT_WINDOWS: Mapping[str, HounsfieldWindow] = {"soft tissue": SOFT_TISSUE, "lung": LUNG, "bone": BONE}
CT_SCHEME = "CTNormalization"
"""nnU-Net's name of the normalisation of channels in Hounsfield units."""


def choose_window(intensities: Mapping[str, Mapping[str, float]], schemes: Sequence[str]) -> HounsfieldWindow:
    """The window that holds the median of the labelled foreground of the first CT channel; soft tissue without one.

    Args:
        intensities: of the labelled foreground by channel, nnU-Net's ``foreground_intensity_properties_per_channel``.
        schemes: nnU-Net's ``normalization_schemes``, which say what channels are CT.

    Returns:
        lowest and highest Hounsfield units.
    """
    if CT_SCHEME not in schemes:
        return SOFT_TISSUE
    properties = intensities[str(schemes.index(CT_SCHEME))]
    if properties["median"] < SOFT_TISSUE[0]:
        return LUNG
    return BONE if properties["median"] > SOFT_TISSUE[1] else SOFT_TISSUE


def preprocessed_window(window: HounsfieldWindow, properties: Mapping[str, float]) -> HounsfieldWindow:
    """A window in HU as values of the preprocessed image, which nnU-Net normalised to (HU - mean) / deviation.

    Args:
        window: lowest and highest HU.
        properties: nnU-Net's ``foreground_intensity_properties_per_channel`` of the channel.
    """
    mean, deviation = properties["mean"], max(properties["std"], 1e-8)
    low, high = ((value - mean) / deviation for value in window)
    return low, high
