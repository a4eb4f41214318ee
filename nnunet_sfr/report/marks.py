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
MARGIN = 6
OUTLINE = 2
"""Pixels of black around letters and bar, which make both readable on any grey."""
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
    font = ImageFont.load_default(size)
    for (place, anchor), letter in zip(places, SIDES[axis], strict=True):
        draw.text(place, letter, fill=255, font=font, anchor=anchor, stroke_width=OUTLINE, stroke_fill=0)
    return np.asarray(image)


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
    x, y = left + MARGIN + OUTLINE, top + height - MARGIN - BAR_HEIGHT - OUTLINE
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.rectangle((x - OUTLINE, y - OUTLINE, x + pixels - 1 + OUTLINE, y + BAR_HEIGHT - 1 + OUTLINE), fill=0)
    draw.rectangle((x, y, x + pixels - 1, y + BAR_HEIGHT - 1), fill=255)
    font = ImageFont.load_default(min(LETTER * 3 // 4, max(height // 4, 8)))
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    draw.text((x, y - OUTLINE - 2), text, fill=255, font=font, anchor="lb", stroke_width=OUTLINE, stroke_fill=0)
    return np.asarray(image)


def bar_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most ``most`` mm."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(nice * power for nice in NICE_LENGTHS if nice * power <= most * (1 + 1e-9)))
