"""The pictures of the report: an image in grey with the labels drawn in, and three planes of a volume side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_sfr.atomic import replacing
from nnunet_sfr.report.target import Voxel

WIDTH, HEIGHT = 600, 400
"""Largest size of the three planes in pixels."""
GAP = 4
"""Pixels between two planes."""
SUFFIX = ".webp"
QUALITY = 80
"""Of the WebP files, up to 100; a picture of three planes takes about 15 kB."""
WINDOW = (0.5, 99.5)
"""Percentiles of the image that become black and white."""
WINDOW_VOXELS = 1_000_000
"""The percentiles are those of about so many voxels, at equal distances."""
FILL = 0.3
"""Opacity of a label's inside; its contour is opaque."""

Colours = Mapping[int, tuple[int, int, int]]
"""Red, green and blue, from 0 to 255, by label value."""


@dataclass(frozen=True)
class Plane:
    """One plane of a volume on the picture.

    Args:
        axis: of the volume (z, y, x), across the plane: 0 axial, 1 coronal, 2 sagittal.
        box: left, top, width and height in pixels.
    """

    axis: int
    box: tuple[int, int, int, int]

    def cut(self, volume: np.ndarray, centre: Voxel) -> np.ndarray:
        """The plane through ``centre``: rows from anterior to posterior (axial), or from superior to inferior."""
        plane: np.ndarray = np.take(volume, centre[self.axis], axis=self.axis)
        return plane if self.axis == 0 else plane[::-1]


def grey_levels(image: np.ndarray) -> tuple[float, float]:
    """The values that are shown black and white: the percentiles ``WINDOW``."""
    values = image.ravel()[:: max(1, image.size // WINDOW_VOXELS)]
    low, high = np.percentile(values, WINDOW)
    return float(low), float(high)


def to_grey(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """An image of any shape in grey levels from 0 to 255 (uint8)."""
    low, high = levels
    width = high - low if high > low else 1.0
    grey: np.ndarray = np.round(255 * np.clip((image.astype(np.float32) - low) / width, 0, 1)).astype(np.uint8)
    return grey


def draw_labels(grey: np.ndarray, labels: np.ndarray, colours: Colours) -> np.ndarray:
    """Labels on a grey picture: each in its colour, half transparent inside and opaque along its edge.

    Args:
        grey: (H, W), uint8.
        labels: (H, W); values that have no colour are not drawn.
        colours: of the labels.

    Returns:
        (H, W, 3), uint8.
    """
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    edge = _edges(labels)
    for value, colour in colours.items():
        inside = labels == value
        picture[inside] = (1 - FILL) * picture[inside] + FILL * np.asarray(colour, np.float32)
        picture[inside & edge] = colour
    return np.round(picture).astype(np.uint8)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels with another label beside, above or below them; the border of the picture is no edge."""
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        here = np.moveaxis(labels, axis, 0)
        changes = here[1:] != here[:-1]
        mark = np.moveaxis(edge, axis, 0)
        mark[1:] |= changes
        mark[:-1] |= changes
    return edge


def lay_out(shape: Sequence[int], spacing: Sequence[float]) -> list[Plane]:
    """Where the planes of a volume go: side by side, all with the same number of pixels to a millimetre.

    Args:
        shape: (z, y, x) in voxels. With a single slice along an axis, only the plane across it is shown.
        spacing: (z, y, x) in mm.
    """
    size = [length * step for length, step in zip(shape, spacing, strict=True)]
    flat = [axis for axis in range(3) if shape[axis] == 1]
    shown = flat[:1] or [0, 1, 2]
    heights = [size[1 if axis == 0 else 0] for axis in shown]
    widths = [size[1 if axis == 2 else 2] for axis in shown]
    scale = min((WIDTH - GAP * (len(shown) - 1)) / sum(widths), HEIGHT / max(heights))
    highest = _pixels(scale * max(heights))
    planes, left = [], 0
    for axis, height, width in zip(shown, heights, widths, strict=True):
        rows, columns = _pixels(scale * height), _pixels(scale * width)
        planes.append(Plane(axis, (left, (highest - rows) // 2, columns, rows)))
        left += columns + GAP
    return planes


def _pixels(length: float) -> int:
    return max(1, math.floor(length + 0.5))


def draw_planes(
    image: np.ndarray,
    labels: np.ndarray | None,
    centre: Voxel,
    spacing: Sequence[float],
    levels: tuple[float, float],
    colours: Colours,
) -> np.ndarray:
    """The axial, coronal and sagittal plane through a point.

    Args:
        image: (z, y, x), from inferior to superior, from anterior to posterior, from the patient's right to left.
        labels: the same shape; None for the image alone.
        centre: (z, y, x) in voxels.
        spacing: (z, y, x) in mm.
        levels: values that are black and white.
        colours: of the labels.

    Returns:
        (H, W, 3), uint8, black between the planes.
    """
    planes = lay_out(image.shape, spacing)
    left, _, columns, _ = planes[-1].box
    height = max(top + rows for _, top, _, rows in (plane.box for plane in planes))
    picture = np.zeros((height, left + columns, 3), dtype=np.uint8)
    for plane in planes:
        x, y, width, rows = plane.box
        grey = _resize(to_grey(plane.cut(image, centre), levels), (width, rows), Image.Resampling.BILINEAR)
        shown = np.zeros_like(grey)
        if labels is not None:
            # nearest: what is drawn is where the voxels are
            cut = plane.cut(labels, centre).astype(np.int32)
            shown = _resize(cut, (width, rows), Image.Resampling.NEAREST)
        picture[y : y + rows, x : x + width] = draw_labels(grey, shown, colours)
    return picture


def _resize(plane: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, resampling))


def save_picture(picture: np.ndarray, file: Path) -> None:
    """Write a picture (H, W, 3), uint8, as WebP."""
    with replacing(file) as temporary:
        Image.fromarray(picture).save(temporary, format="WEBP", quality=QUALITY)
