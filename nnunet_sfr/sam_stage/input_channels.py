"""How many channels SAM's encoder sees, and whether they ask for a first layer that has to learn. No torch here."""

from __future__ import annotations

RGB = 3
"""Channels that the published first layers were trained with."""


def encoder_channels(in_channels: int) -> int:
    """Channels that the encoder sees: a single channel is copied to three (paper), others are taken as they are.

    Args:
        in_channels: of the image.
    """
    return RGB if in_channels == 1 else in_channels


def has_own_first_layer(in_channels: int) -> bool:
    """Whether images ask for another first layer than the published one, which every adaptation trains then.

    Args:
        in_channels: of the image.
    """
    return encoder_channels(in_channels) != RGB
