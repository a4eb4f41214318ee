"""What drawings are made of: words, boxes, pictures and arrows, placed in inches from the top left corner."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Line
from numpy.typing import NDArray
from PIL import Image

from nnunet_sfr.atomic import replacing

INK, PAPER = "#222222", "#ffffff"
TEXT_SIZE = 12.5
"""Of all words, in points; 17 pixels high where the drawing is shown at 100 dots per inch."""
DOTS_PER_INCH = 200
COLOURS = 256
"""In the file's palette, which makes it a third as large."""
LINE_WIDTH, HEAD, ROUNDING = 3.0, 0.18, 0.15
"""Of arrows: points, then inches."""

Picture = NDArray[np.float64]
"""(height, width, 3), 0 to 1."""
Point = tuple[float, float]
"""(from the left, from the top) in inches."""


class Canvas:
    """A figure of a size in inches, with fonts that matplotlib brings along: it looks the same everywhere."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self._keep_limits()

    def text(self, left: float, top: float, content: str, **style: Any) -> None:
        """Words whose middle is at ``top``."""
        standard = {"size": TEXT_SIZE, "color": INK, "va": "center", "family": "DejaVu Sans"}
        self.axes.text(left, top, content, **{**standard, **style})

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        style = f"round,pad=0,rounding_size={ROUNDING}"
        self.axes.add_patch(FancyBboxPatch((left, top), width, height, boxstyle=style, facecolor=colour, linewidth=0))

    def picture(self, left: float, top: float, side: float, content: Picture) -> None:
        """A square; what does not fit in it is cut off evenly."""
        height, width = content.shape[:2]
        shorter = min(height, width)
        row, column = (height - shorter) // 2, (width - shorter) // 2
        square = content[row : row + shorter, column : column + shorter]
        extent = (left, left + side, top + side, top)
        self.axes.imshow(square, extent=extent, interpolation="bicubic", aspect="auto", zorder=2)
        self._keep_limits()

    def arrow(self, *points: Point, colour: str) -> None:
        """A line through the points, each segment level or upright, with a head at the last."""
        end, before = np.array(points[-1]), np.array(points[-2])
        along = (end - before) / np.linalg.norm(end - before)
        across = np.array([-along[1], along[0]])
        neck = end - HEAD * along
        line = _rounded([*map(np.array, points[:-1]), neck])
        self.axes.add_patch(PathPatch(line, fill=False, edgecolor=colour, linewidth=LINE_WIDTH, capstyle="butt"))
        corners = np.stack([end, neck + HEAD / 2 * across, neck - HEAD / 2 * across])
        self.axes.fill(corners[:, 0], corners[:, 1], color=colour, linewidth=0)

    def write(self, file: Path) -> None:
        """Write the drawing as PNG, whole or not at all."""
        content = io.BytesIO()
        self.figure.savefig(content, format="png", facecolor=PAPER)
        with replacing(file) as temporary:
            picture = Image.open(content).convert("RGB")
            # of Pillow's ways the one that keeps greys grey
            picture = picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            picture.save(temporary, optimize=True)

    def _keep_limits(self) -> None:
        """Pictures would set others."""
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))


def _rounded(points: Sequence[NDArray[np.float64]]) -> Line:
    """A line whose corners are curves of the radius ROUNDING."""
    vertices, codes = [points[0]], [Line.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        for other, code in ((before, Line.LINETO), (after, Line.CURVE3)):
            towards = corner + ROUNDING * (other - corner) / np.linalg.norm(other - corner)
            vertices += [towards] if code == Line.LINETO else [corner, towards]
            codes += [code] if code == Line.LINETO else [code, code]
    return Line([*vertices, points[-1]], [*codes, Line.LINETO])
