"""The picture of a run: pseudo-labels and predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window system is needed, or looked for

import numpy as np
import SimpleITK as sitk
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from demo.scoring import Labels, read_labels

TRUTH_COLOUR, RESULT_COLOUR = "#56B4E9", "#E69F00"
"""Sky blue and orange of Okabe and Ito's palette: apart for every kind of colour vision, and bright on grey."""
DOTS_PER_INCH = 200
SCALE_BAR = 20
"""Length in mm."""

# Lengths of the layout, in inches.
BLOCK, NOTES, MARGIN, GAP, BETWEEN, HEADER, FOOTER = 3.1, 1.35, 0.08, 0.03, 0.1, 0.26, 0.3


@dataclass(frozen=True)
class Picture:
    """One row of the figure.

    Args:
        title: what kind of case this is; may have several lines.
        note: smaller text below it.
        image: (z, y, x).
        truth: label map on the same grid.
        result: label map on the same grid, or None to show the truth alone.
        spacing: voxel size (z, y, x) in mm.
    """

    title: str
    note: str
    image: NDArray[np.number]
    truth: Labels
    result: Labels | None
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class _Plane:
    """One cut through a picture: rows from top to bottom, columns from left to right; its size in mm."""

    name: str
    image: NDArray[np.number]
    truth: Labels
    result: Labels | None
    height: float
    width: float


class _Canvas:
    """A figure on which axes and text are placed in inches from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure: Figure = plt.figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes: Axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, content: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, content, **style)


def read_picture(title: str, note: str, *, image: Path, truth: Path, result: Path) -> Picture:
    volume = sitk.ReadImage(str(image))
    x, y, z = volume.GetSpacing()
    return Picture(title, note, sitk.GetArrayFromImage(volume), read_labels(truth), read_labels(result), (z, y, x))


def draw(pictures: Sequence[Picture], file: Path) -> None:
    """Write one row per picture: the image, and once more with the contours of truth and result.

    Both times it shows three orthogonal planes through the middle of the target, on one scale: axial at the left,
    coronal above sagittal at the right.
    """
    rows = [_planes(picture) for picture in pictures]
    heights = [_block_height(planes) for planes in rows]
    with plt.rc_context({"font.size": 8}):
        total = HEADER + sum(heights) + BETWEEN * (len(rows) - 1) + FOOTER
        canvas = _Canvas(NOTES + 2 * BLOCK + BETWEEN + MARGIN, total)
        top = HEADER
        for number, (picture, planes, height) in enumerate(zip(pictures, rows, heights, strict=True)):
            _label_row(canvas, picture, top)
            for column, contours in enumerate((False, True)):
                _draw_block(canvas, planes, NOTES + column * (BLOCK + BETWEEN), top, contours=contours)
                if number == 0:
                    heading = ("Image", "Image with contours")[column]
                    middle = NOTES + column * (BLOCK + BETWEEN) + BLOCK / 2
                    canvas.text(middle, HEADER - 0.08, heading, ha="center", va="bottom", weight="bold")
            top += height + BETWEEN
        _add_legend(canvas, with_results=any(picture.result is not None for picture in pictures))
        canvas.figure.savefig(file, dpi=DOTS_PER_INCH, facecolor="white")
        plt.close(canvas.figure)


def centre_of(labels: Labels) -> tuple[int, int, int]:
    """The voxel to cut through: the median along each axis (of the whole volume, where there is no label)."""
    voxels = np.nonzero(labels)
    if voxels[0].size == 0:
        voxels = tuple(np.arange(size) for size in labels.shape)
    z, y, x = (int(np.median(axis)) for axis in voxels)
    return z, y, x


def _planes(picture: Picture) -> tuple[_Plane, _Plane, _Plane]:
    """Axial, coronal and sagittal, upright for nnU-Net's axes (z towards the head, y towards the back)."""
    z, y, x = centre_of(picture.truth)
    cuts: dict[str, tuple[Any, tuple[int, int]]] = {
        "axial": (np.s_[z, :, :], (1, 2)),
        "coronal": (np.s_[::-1, y, :], (0, 2)),
        "sagittal": (np.s_[::-1, :, x], (0, 1)),
    }
    planes = []
    for name, (cut, (vertical, horizontal)) in cuts.items():
        height = picture.image.shape[vertical] * picture.spacing[vertical]
        width = picture.image.shape[horizontal] * picture.spacing[horizontal]
        result = None if picture.result is None else picture.result[cut]
        planes.append(_Plane(name, picture.image[cut], picture.truth[cut], result, height, width))
    return planes[0], planes[1], planes[2]


def _inches_per_mm(planes: Sequence[_Plane]) -> float:
    """Two planes side by side fill a block."""
    return (BLOCK - GAP) / 2 / max(plane.width for plane in planes)


def _block_height(planes: Sequence[_Plane]) -> float:
    axial, coronal, sagittal = planes
    scale = _inches_per_mm(planes)
    return max(axial.height * scale, (coronal.height + sagittal.height) * scale + GAP)


def _draw_block(canvas: _Canvas, planes: Sequence[_Plane], left: float, top: float, *, contours: bool) -> None:
    axial, coronal, _ = planes
    scale = _inches_per_mm(planes)
    side = left + (BLOCK + GAP) / 2
    places = ((left, top), (side, top), (side, top + coronal.height * scale + GAP))
    low, high = np.percentile(axial.image, (0.5, 99.7))
    for plane, place in zip(planes, places, strict=True):
        axes = canvas.axes(*place, plane.width * scale, plane.height * scale)
        extent = (0, plane.width, plane.height, 0)
        axes.imshow(
            plane.image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bicubic", aspect="auto"
        )
        if contours:
            _draw_contours(axes, plane)
            continue
        _write_on(axes, plane.name, 2.5, 2.5, va="top")
        if plane is axial:
            _draw_scale_bar(axes, plane)


def _draw_contours(axes: Axes, plane: _Plane) -> None:
    """The outline of every label; the truth lies below and is wider, so that it shows where both agree."""
    for labels, colour, width in ((plane.truth, TRUTH_COLOUR, 2.0), (plane.result, RESULT_COLOUR, 1.0)):
        if labels is None:
            continue
        rows, columns = labels.shape
        x = (np.arange(columns) + 0.5) * plane.width / columns
        y = (np.arange(rows) + 0.5) * plane.height / rows
        for label in np.unique(labels[labels > 0]):
            axes.contour(x, y, labels == label, levels=[0.5], colors=[colour], linewidths=width)


def _draw_scale_bar(axes: Axes, plane: _Plane) -> None:
    left, bottom = 0.04 * plane.width, 0.96 * plane.height
    axes.plot((left, left + SCALE_BAR), (bottom, bottom), color="white", linewidth=1.5, solid_capstyle="butt")
    _write_on(axes, f"{SCALE_BAR} mm", left, bottom - 2, va="bottom")


def _write_on(axes: Axes, text: str, x: float, y: float, *, va: str) -> None:
    """White letters with a dark rim, readable on any image."""
    rim = [patheffects.withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, text, color="white", fontsize=6.5, va=va, path_effects=rim)


def _label_row(canvas: _Canvas, picture: Picture, top: float) -> None:
    canvas.text(MARGIN, top, picture.title, va="top", weight="bold", linespacing=1.3)
    lines = picture.title.count("\n") + 1
    canvas.text(MARGIN, top + 0.06 + 0.15 * lines, picture.note, va="top", linespacing=1.4, color="0.25")


def _add_legend(canvas: _Canvas, *, with_results: bool) -> None:
    lines = [Line2D([], [], color=TRUTH_COLOUR, linewidth=2.5, label="truth")]
    if with_results:
        lines.append(Line2D([], [], color=RESULT_COLOUR, linewidth=1.5, label="pseudo-label or prediction"))
    right = 1 - MARGIN / canvas.width
    canvas.figure.legend(handles=lines, loc="lower right", bbox_to_anchor=(right, 0.0), ncols=2, frameon=False)
