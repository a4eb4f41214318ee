"""Windows of the Hounsfield scale: which one SAM sees, and in which ones a CT can be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_sfr.settings import SAMSettings

HounsfieldWindow = tuple[float, float]
"""Lowest and highest Hounsfield units that are told apart."""

SOFT_TISSUE, LUNG, BONE = "soft tissue", "lung", "bone"
CT_WINDOWS: Mapping[str, HounsfieldWindow] = {
    SOFT_TISSUE: SAMSettings.window,
    LUNG: (-1350.0, 150.0),
    BONE: (-500.0, 1300.0),
}
"""In which people look at a CT (widths 400, 1500, 1800 around 40, -600, 400)."""
MEDSAM_WINDOWS: Mapping[str, HounsfieldWindow] = {**CT_WINDOWS, LUNG: (-910.0, 590.0)}
"""With which MedSAM's training data were made: that of the lung lies around -160 (J. Ma et al., "Segment anything in
medical images", Nature Communications 15:654, 2024, Methods)."""
CT_SCHEME = "CTNormalization"
"""nnU-Net's name of the normalisation of channels in Hounsfield units."""


def choose_window(intensities: Mapping[str, Mapping[str, float]], schemes: Sequence[str]) -> str:
    """The window for the labelled foreground of the first CT channel, by its median; soft tissue without one.

    Args:
        intensities: of the labelled foreground by channel, nnU-Net's ``foreground_intensity_properties_per_channel``.
        schemes: nnU-Net's ``normalization_schemes``, which say what channels are CT.

    Returns:
        its name in :data:`CT_WINDOWS` and :data:`MEDSAM_WINDOWS`: soft tissue where the median lies in that window,
        lung below, bone above.
    """
    if CT_SCHEME not in schemes:
        return SOFT_TISSUE
    median = intensities[str(schemes.index(CT_SCHEME))]["median"]
    low, high = CT_WINDOWS[SOFT_TISSUE]
    if median < low:
        return LUNG
    return BONE if median > high else SOFT_TISSUE


def preprocessed_window(window: HounsfieldWindow, properties: Mapping[str, float]) -> HounsfieldWindow:
    """A window in HU as values of the preprocessed image, which nnU-Net normalised to (HU - mean) / deviation.

    Args:
        window: lowest and highest HU.
        properties: nnU-Net's ``foreground_intensity_properties_per_channel`` of the channel.
    """
    mean, deviation = properties["mean"], max(properties["std"], 1e-8)
    low, high = ((value - mean) / deviation for value in window)
    return low, high
