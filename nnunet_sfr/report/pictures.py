"""The pictures of the report: planes of a volume in grey, and their labels as a transparent picture on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_sfr.atomic import replacing
from nnunet_sfr.report.marks import draw_scale_bar, mark_sides
from nnunet_sfr.report.target import Voxel

WIDTH, HEIGHT = 960, 720
"""Largest size of the three planes in pixels."""
GAP = 6
"""Pixels between two planes."""
LONGEST = 1.6
"""Along its longest axis, no more of a volume is shown than this times its second longest side: of a scan of the whole
body the part around the target, at a size that can be read."""
SUFFIX = ".webp"
QUALITY = 80
"""Of the grey WebP files, up to 100."""
COMPRESSION = 2
"""Effort of the WebP encoder, from 0 (fast) to 6."""
FILL = 0.3
"""Opacity of a label's inside; its contour is opaque."""
CONTOUR = 2
"""Width of the contour in pixels, inside the label."""

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
        """The plane through a voxel: rows from anterior to posterior (axial), or from superior to inferior.

        Args:
            volume: (z, y, x).
            centre: (z, y, x) in voxels.
        """
        plane: np.ndarray = np.take(volume, centre[self.axis], axis=self.axis)
        return plane if self.axis == 0 else plane[::-1]


@dataclass(frozen=True)
class Layout:
    """Where the planes of a volume go on a picture, all with the same number of pixels to a millimetre.

    Args:
        planes: the axial, coronal and sagittal one, or the only one of a single slice.
        size: (width, height) of the picture in pixels.
        pixels_per_mm: of every plane.
    """

    planes: tuple[Plane, ...]
    size: tuple[int, int]
    pixels_per_mm: float


def to_grey(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Grey levels from 0 to 255.

    Args:
        image: of any shape.
        levels: values that are black and white.

    Returns:
        the same shape, uint8.
    """
    low, high = levels
    width = high - low if high > low else 1.0
    grey: np.ndarray = np.round(255 * np.clip((image.astype(np.float32) - low) / width, 0, 1)).astype(np.uint8)
    return grey


def colour_labels(labels: np.ndarray, colours: Colours) -> np.ndarray:
    """A transparent picture of labels: each in its colour, half transparent inside and opaque along its contour.

    Args:
        labels: (H, W); values that have no colour are transparent.
        colours: of the labels.

    Returns:
        (H, W, 4), uint8: red, green, blue, opacity.
    """
    picture = np.zeros((*labels.shape, 4), dtype=np.uint8)
    contour = _contours(labels)
    for value, colour in colours.items():
        inside = labels == value
        picture[inside] = (*colour, round(255 * FILL))
        picture[inside & contour] = (*colour, 255)
    return picture


def _contours(labels: np.ndarray) -> np.ndarray:
    """Pixels that have another label within ``CONTOUR`` pixels beside, above or below; the border is no contour."""
    contour = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        along = np.moveaxis(labels, axis, 0)
        mark = np.moveaxis(contour, axis, 0)
        for distance in range(1, min(CONTOUR, len(along) - 1) + 1):
            changes = along[distance:] != along[:-distance]
            mark[distance:] |= changes
            mark[:-distance] |= changes
    return contour


def field_of_view(shape: Sequence[int], spacing: Sequence[float], centre: Voxel) -> tuple[slice, slice, slice]:
    """The part of a volume that is shown: all of it, or less along an axis that is much longer than the others.

    Args:
        shape: (z, y, x) in voxels.
        spacing: (z, y, x) in mm.
        centre: (z, y, x) in voxels, in the middle of the part as far as the volume reaches.
    """
    size = [length * step for length, step in zip(shape, spacing, strict=True)]
    most = LONGEST * sorted(size)[1]
    sides = []
    for length, step, middle in zip(shape, spacing, centre, strict=True):
        shown = min(length, max(1, round(most / step)))
        start = min(max(middle - shown // 2, 0), length - shown)
        sides.append(slice(start, start + shown))
    return sides[0], sides[1], sides[2]


def lay_out(shape: Sequence[int], spacing: Sequence[float]) -> Layout:
    """Place the planes in true proportions, as large as possible: in a row, or the axial one beside the others.

    Args:
        shape: (z, y, x) in voxels. With a single slice along an axis, only the plane across it is shown.
        spacing: (z, y, x) in mm.
    """
    depth, height, width = (length * step for length, step in zip(shape, spacing, strict=True))
    sizes = {0: (width, height), 1: (width, depth), 2: (height, depth)}
    flat = [axis for axis in range(3) if shape[axis] == 1]
    arrangements: list[tuple[tuple[int, ...], ...]] = [((0,), (1,), (2,)), ((0,), (1, 2))]
    if flat:
        arrangements = [((flat[0],),)]
    return max((_arrange(columns, sizes) for columns in arrangements), key=lambda layout: layout.pixels_per_mm)


def _arrange(columns: Sequence[Sequence[int]], sizes: Mapping[int, tuple[float, float]]) -> Layout:
    """Columns of planes side by side, each in the middle of the height.

    Args:
        columns: from left to right, the axes of the planes from top to bottom.
        sizes: (width, height) of every plane in mm.
    """
    widths = [max(sizes[axis][0] for axis in column) for column in columns]
    heights = [sum(sizes[axis][1] for axis in column) for column in columns]
    gaps = GAP * (max(map(len, columns)) - 1)
    scale = min((WIDTH - GAP * (len(columns) - 1)) / sum(widths), (HEIGHT - gaps) / max(heights))
    pixels = {axis: (_pixels(scale * width), _pixels(scale * height)) for axis, (width, height) in sizes.items()}
    filled = [sum(pixels[axis][1] for axis in column) + GAP * (len(column) - 1) for column in columns]
    planes, left = [], 0
    for column, height in zip(columns, filled, strict=True):
        top = (max(filled) - height) // 2
        for axis in column:
            planes.append(Plane(axis, (left, top, *pixels[axis])))
            top += pixels[axis][1] + GAP
        left += max(pixels[axis][0] for axis in column) + GAP
    return Layout(tuple(planes), (left - GAP, max(filled)), scale)


def _pixels(length: float) -> int:
    return max(1, math.floor(length + 0.5))


def draw_image(
    image: np.ndarray, layout: Layout, centre: Voxel, levels: tuple[float, float], *, is_oriented: bool = True
) -> np.ndarray:
    """The planes of an image through a point, with the sides of the patient and a scale bar.

    Args:
        image: (z, y, x), from inferior to superior, from anterior to posterior, from the patient's right to left.
        layout: of its planes.
        centre: (z, y, x) in voxels.
        levels: values that are black and white.
        is_oriented: whether the file says how the patient lies; letters would be a guess where it does not.

    Returns:
        (H, W), uint8, black between the planes.
    """
    width, height = layout.size
    picture = np.zeros((height, width), dtype=np.uint8)
    for plane in layout.planes:
        grey = to_grey(plane.cut(image, centre), levels)
        _paste(picture, plane, grey, Image.Resampling.BILINEAR)
    for plane in layout.planes if is_oriented else ():
        picture = mark_sides(picture, plane.box, plane.axis)
    return draw_scale_bar(picture, layout.planes[0].box, layout.pixels_per_mm)


def draw_labels(labels: np.ndarray, layout: Layout, centre: Voxel, colours: Colours) -> np.ndarray:
    """The labels of the planes of :func:`draw_image`; nearest neighbours, so that what is drawn is where voxels are.

    Args:
        labels: (z, y, x).
        layout: of the planes.
        centre: (z, y, x) in voxels.
        colours: of the labels.

    Returns:
        (H, W, 4), uint8: red, green, blue, opacity.
    """
    width, height = layout.size
    shown = np.zeros((height, width), dtype=np.int32)
    outlined = np.zeros((height, width, 4), dtype=np.uint8)
    for plane in layout.planes:
        x, y, columns, rows = plane.box
        _paste(shown, plane, plane.cut(labels, centre).astype(np.int32), Image.Resampling.NEAREST)
        # plane by plane: where one ends is no contour
        outlined[y : y + rows, x : x + columns] = colour_labels(shown[y : y + rows, x : x + columns], colours)
    return outlined


def _paste(picture: np.ndarray, plane: Plane, content: np.ndarray, resampling: Image.Resampling) -> None:
    x, y, width, height = plane.box
    resized = Image.fromarray(np.ascontiguousarray(content)).resize((width, height), resampling)
    picture[y : y + height, x : x + width] = np.asarray(resized)


def save_image(picture: np.ndarray, file: Path) -> None:
    """Write a grey picture as WebP; the file appears whole or not at all.

    Args:
        picture: (H, W), uint8.
        file: to write.
    """
    with replacing(file) as temporary:
        Image.fromarray(picture).save(temporary, format="WEBP", quality=QUALITY, method=COMPRESSION)


def save_labels(picture: np.ndarray, file: Path) -> None:
    """Write a transparent picture as WebP without loss; the file appears whole or not at all.

    Args:
        picture: (H, W, 4), uint8.
        file: to write.
    """
    with replacing(file) as temporary:
        Image.fromarray(picture).save(temporary, format="WEBP", lossless=True, method=COMPRESSION)
