"""Which part of the Hounsfield scale SAM sees, for models that were trained on windowed CT."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_sfr.settings import SAMSettings

SOFT_TISSUE = SAMSettings.window
LUNG = (-1350.0, 150.0)
BONE = (-500.0, 1300.0)
"""Windows in HU with which MedSAM's training data were made (widths 400, 1500, 1800 around 40, -600, 400)."""
CT_SCHEME = "CTNormalization"
"""nnU-Net's name of the normalisation of channels in Hounsfield units."""


def choose_window(plans_manager: PlansManager, configuration: ConfigurationManager) -> tuple[float, float]:
    """The window that holds the median of the labelled foreground of the first CT channel; soft tissue without one.

    Args:
        plans_manager: nnU-Net's plan, with the intensities of the labelled foreground.
        configuration: of that plan; says which channels are CT.

    Returns:
        lowest and highest Hounsfield units.
    """
    schemes = list(configuration.normalization_schemes)
    if CT_SCHEME not in schemes:
        return SOFT_TISSUE
    properties = plans_manager.foreground_intensity_properties_per_channel[str(schemes.index(CT_SCHEME))]
    if properties["median"] < SOFT_TISSUE[0]:
        return LUNG
    return BONE if properties["median"] > SOFT_TISSUE[1] else SOFT_TISSUE
