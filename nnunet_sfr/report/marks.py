"""What a radiologist looks for on a picture: letters for the sides of the patient, and a scale bar."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

SIDES: Mapping[int, tuple[str, str, str, str]] = {
    0: ("A", "P", "R", "L"),
    1: ("H", "F", "R", "L"),
    2: ("H", "F", "A", "P"),
}
"""Letters at the top, bottom, left and right of a plane across axis 0 (axial), 1 (coronal) or 2 (sagittal): anterior,
posterior, right, left, head and feet, as DICOM abbreviates them."""
LETTER = 22
"""Height of the letters in pixels, of a picture that is shown at half its size or more."""
GROUND = 3
"""Pixels of black around letters and bar."""
MARGIN = 6
BAR_SHARE = 0.3
"""A scale bar is at most this part of its plane's width."""
BAR_HEIGHT = 4
NICE_LENGTHS = (1, 2, 5)


def mark_sides(picture: np.ndarray, box: Box, axis: int) -> np.ndarray:
    """Write the four letters of a plane at the edges of its box.

    Args:
        picture: (H, W), uint8.
        box: of the plane.
        axis: across the plane, a key of ``SIDES``.

    Returns:
        a new picture of the same shape.
    """
    left, top, width, height = box
    size = min(LETTER, max(min(width, height) // 3, 8))
    right, bottom, middle_x, middle_y = left + width, top + height, left + width // 2, top + height // 2
    places = (
        ((middle_x, top + MARGIN), "mt"),
        ((middle_x, bottom - MARGIN), "mb"),
        ((left + MARGIN, middle_y), "lm"),
        ((right - MARGIN, middle_y), "rm"),
    )
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for (place, anchor), letter in zip(places, SIDES[axis], strict=True):
        _write(draw, place, letter, size, anchor)
    return np.asarray(image)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, anchor: str) -> None:
    """White on a black ground, which can be read on bright and dark images alike."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox(place, text, font=font, anchor=anchor)
    draw.rectangle((left - GROUND, top - GROUND, right + GROUND, bottom + GROUND), fill=0)
    draw.text(place, text, fill=255, font=font, anchor=anchor)


def draw_scale_bar(picture: np.ndarray, box: Box, pixels_per_mm: float) -> np.ndarray:
    """Draw a bar of a round number of millimetres or centimetres at the bottom left of a plane.

    Args:
        picture: (H, W), uint8.
        box: of the plane.
        pixels_per_mm: of the plane.

    Returns:
        a new picture of the same shape.
    """
    left, top, width, height = box
    length = bar_length(BAR_SHARE * width / pixels_per_mm)
    pixels = max(1, round(length * pixels_per_mm))
    x, y = left + MARGIN, top + height - MARGIN - BAR_HEIGHT
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    _write(draw, (x, y - 2 * GROUND), text, min(LETTER * 3 // 4, max(height // 4, 8)), "lb")
    draw.rectangle((x - GROUND, y - GROUND, x + pixels - 1 + GROUND, y + BAR_HEIGHT - 1 + GROUND), fill=0)
    draw.rectangle((x, y, x + pixels - 1, y + BAR_HEIGHT - 1), fill=255)
    return np.asarray(image)


def bar_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most ``most`` mm."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(nice * power for nice in NICE_LENGTHS if nice * power <= most * (1 + 1e-9)))
