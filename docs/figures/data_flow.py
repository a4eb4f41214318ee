"""Draws the data flow, docs/images/data_flow.png, with volumes of the demonstration.

python docs/figures/data_flow.py
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, and this script needs the one of the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from demo.figure import RESULT_COLOUR, TRUTH_COLOUR, centre_of
from demo.synthetic import Volume, make_volume
from docs.figures.canvas import PAPER, Canvas, Picture, Point
from nnunet_sfr.sam_stage.stitching import StitchGeometry

PICTURE = Path(__file__).resolve().parents[1] / "images" / "data_flow.png"

PANEL, WAY, LOOP = "#eef1f4", "#0072b2", "#d55e00"
"""The last two are Okabe and Ito's blue and vermilion, which colour-blind people tell apart."""
TINT = 0.6
"""How much a label covers of the image below it."""

# Inches.
MARGIN, PAD, GAP, SIDE = 0.15, 0.12, 0.12, 1.22
"""Around everything, within a panel, between pictures; side of a picture."""
TITLE, TITLE_DROP = 0.4, 0.04
"""Height of a panel's head, and by how much its words lie below the middle."""
LINE, BESIDE = 0.26, 0.2
"""From one line of words to the next, from an arrow to its words."""
COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 2 * PAD + COLUMNS * SIDE + (COLUMNS - 1) * GAP, TITLE + SIDE + PAD
STEP = PANEL_HEIGHT + 0.6
"""From one panel to the next; commands stand between them."""
LOOP_LINE = MARGIN + PANEL_WIDTH + 0.25
LOOP_WORDS = LOOP_LINE + BESIDE
WIDTH, HEIGHT = 9.0, 2 * MARGIN + 3 * STEP + PANEL_HEIGHT

LABELLED, POOL, NEW = 10, (4, 7, 5), 15
"""Which of the synthetic volumes are shown."""
ROUGHNESS = 1.2
"""Of labels that stand for a network's: those of the truth, blurred over so many voxels."""

CROP, SEAM = 44, 2
"""Of the slices in the mosaic: side, and what is left between two, in voxels."""
SMOOTHING = 0.6
"""Of images, in voxels; noise is most of a file's size."""


def draw() -> Canvas:
    """The whole drawing; always the same."""
    canvas = Canvas(WIDTH, HEIGHT)
    for part in (_data_set, _sam, _pseudo_labels, _model, _loop, _headline):
        part(canvas)
    return canvas


# --- what is on it, from top to bottom --------------------------------------------------------------------------------


def _data_set(canvas: Canvas) -> None:
    _panel(canvas, 0, "A few labelled volumes, many unlabelled")
    canvas.picture(*_slot(0, 0), SIDE, _slice(LABELLED, "truth"))
    for column, index in enumerate(POOL, start=1):
        canvas.picture(*_slot(0, column), SIDE, _slice(index))
    _go_down(canvas, 0, 0, "sfr_plan_and_preprocess")


def _sam(canvas: Canvas) -> None:
    _panel(canvas, 1, "LiteMedSAM is fine-tuned: all slices in one image")
    canvas.picture(*_slot(1, 0), SIDE, _mosaic(LABELLED))
    _block(canvas, 1, "SAM")
    _go_across(canvas, 1, (_slot(1, 1)[0] - GAP, _slot(1, 3)[0]), "sfr_finetune")
    _go_down(canvas, 1, 3, "sfr_pseudolabel")


def _pseudo_labels(canvas: Canvas) -> None:
    _panel(canvas, 2, "Labels, and pseudo-labels from SAM")
    canvas.picture(*_slot(2, 0), SIDE, _slice(LABELLED, "truth"))
    for column, index in enumerate(POOL, start=1):
        canvas.picture(*_slot(2, column), SIDE, _slice(index, "result"))
    _go_down(canvas, 2, 3, "nnUNetv2_train … -tr nnUNetTrainerSFR_MT")


def _model(canvas: Canvas) -> None:
    _panel(canvas, 3, "A normal nnU-Net model, without SAM")
    _block(canvas, 3, "nnU-Net")
    canvas.picture(*_slot(3, 0), SIDE, _slice(NEW, "result"))
    _go_across(canvas, 3, (_slot(3, 3)[0], _slot(3, 1)[0] - GAP), "nnUNetv2_predict")


def _loop(canvas: Canvas) -> None:
    """Beside the panels, from the bottom up: nnU-Net labels the pool, SAM learns its cases of high confidence."""
    block_edge = _slot(1, 3)[0] + SIDE
    corners = [(x, _middle(row)) for row, x in ((3, block_edge), (3, LOOP_LINE), (1, LOOP_LINE), (1, block_edge))]
    canvas.arrow(*corners, colour=LOOP)
    _command(canvas, LOOP_WORDS, _middle(3) - LINE, "sfr_pseudolabel --round 1", color=LOOP)
    _command(canvas, LOOP_WORDS, _middle(3), "-tr nnUNetTrainerSFR_MT", color=LOOP)
    canvas.text(LOOP_WORDS, _middle(3) + LINE, "nnU-Net labels the pool")
    _selection(canvas)
    _command(canvas, LOOP_WORDS, _middle(1) - LINE / 2, "sfr_finetune --round 1", color=LOOP)
    canvas.text(LOOP_WORDS, _middle(1) + LINE / 2, "SAM is trained further")


def _selection(canvas: Canvas) -> None:
    _command(canvas, LOOP_WORDS, _title_middle(2), "sfr_select", color=LOOP)
    for column, (index, lines) in enumerate(
        ((POOL[1], ("high:", "SAM learns it")), (POOL[0], ("low:", "labelled again")))
    ):
        left, top = LOOP_WORDS + column * (SIDE + GAP), _slot(2, 0)[1]
        canvas.picture(left, top, SIDE, _slice(index, "result"))
        for number, line in enumerate(lines):
            canvas.text(left, top + SIDE + PAD + (number + 0.5) * LINE, line)


def _headline(canvas: Canvas) -> None:
    _title(canvas, LOOP_LINE, 0, "SFR+: another round", color=LOOP)
    top = _slot(0, 0)[1] + LINE / 2
    canvas.text(LOOP_LINE, top, "SAM and nnU-Net learn from")
    canvas.text(LOOP_LINE, top + LINE, "each other. Then again by")
    _command(canvas, LOOP_LINE, top + 2 * LINE, "sfr_pseudolabel --round 1", color=LOOP)
    _command(canvas, LOOP_LINE, top + 3 * LINE, "nnUNetTrainerSFRPlus_MT", color=LOOP)


# --- parts ------------------------------------------------------------------------------------------------------------


def _panel(canvas: Canvas, row: int, title: str) -> None:
    top = MARGIN + row * STEP
    canvas.box(MARGIN, top, PANEL_WIDTH, PANEL_HEIGHT, PANEL)
    _title(canvas, MARGIN + PAD, row, title)


def _title(canvas: Canvas, left: float, row: int, title: str, **style: Any) -> None:
    canvas.text(left, _title_middle(row), title, weight="bold", **style)


def _title_middle(row: int) -> float:
    """Of a panel's title, from the top."""
    return MARGIN + row * STEP + (TITLE + TITLE_DROP) / 2


def _slot(row: int, column: int) -> Point:
    """Top left corner of a picture."""
    return MARGIN + PAD + column * (SIDE + GAP), MARGIN + row * STEP + TITLE


def _middle(row: int) -> float:
    """Of a panel's pictures, from the top."""
    return _slot(row, 0)[1] + SIDE / 2


def _block(canvas: Canvas, row: int, name: str) -> None:
    """A network, in the last column."""
    left, top = _slot(row, COLUMNS - 1)
    canvas.box(left, top, SIDE, SIDE, WAY)
    canvas.text(left + SIDE / 2, top + SIDE / 2, name, ha="center", weight="bold", color=PAPER)


def _command(canvas: Canvas, left: float, top: float, command: str, **style: Any) -> None:
    canvas.text(left, top, command, **{"family": "DejaVu Sans Mono", "weight": "bold", "color": WAY, **style})


def _go_down(canvas: Canvas, row: int, column: int, command: str) -> None:
    """An arrow from a panel to the next, below the column; its command stands on the side that has more space."""
    middle = _slot(row, column)[0] + SIDE / 2
    start, end = MARGIN + row * STEP + PANEL_HEIGHT, MARGIN + (row + 1) * STEP
    canvas.arrow((middle, start), (middle, end), colour=WAY)
    at_left = column < COLUMNS / 2
    beside = middle + BESIDE if at_left else middle - BESIDE
    _command(canvas, beside, (start + end) / 2, command, ha="left" if at_left else "right")


def _go_across(canvas: Canvas, row: int, ends: tuple[float, float], command: str) -> None:
    """An arrow within a panel, below its command."""
    start, end = ends
    canvas.arrow((start, _middle(row)), (end, _middle(row)), colour=WAY)
    _command(canvas, (start + end) / 2, _middle(row) - LINE, command, ha="center")


# --- pictures ---------------------------------------------------------------------------------------------------------


@cache
def _volume(index: int) -> Volume:
    return make_volume(0, index)


def _slice(index: int, label: str | None = None) -> Picture:
    """The slice through the middle of the target, with its truth, or with what stands for a network's ``"result"``."""
    volume = _volume(index)
    middle = centre_of(volume.label)[0]
    if label is None:
        return _coloured(_grey(volume)[middle], None, PAPER)
    if label == "truth":
        return _coloured(_grey(volume)[middle], volume.label[middle] > 0, TRUTH_COLOUR)
    rough = gaussian_filter(volume.label.astype(float), ROUGHNESS) > 0.5
    return _coloured(_grey(volume)[middle], rough[middle], RESULT_COLOUR)


def _mosaic(index: int) -> Picture:
    """What SAM learns from, stitched by the package; cropped, so that there is something to see in every slice."""
    volume = _volume(index)
    slices, height, width = volume.image.shape
    top, left = (height - CROP) // 2, (width - CROP) // 2
    tiles = int(np.ceil(np.sqrt(slices)))
    geometry = StitchGeometry((slices, CROP, CROP), tiles * (CROP + SEAM))
    grey, label = (
        geometry.stitch(torch.from_numpy(array[None, None, :, top : top + CROP, left : left + CROP]), fill=fill)[0, 0]
        for array, fill in ((_grey(volume), 1.0), (volume.label, 0))
    )
    return _coloured(grey.numpy(), label.numpy() > 0, TRUTH_COLOUR)


def _grey(volume: Volume) -> NDArray[np.float64]:
    image = gaussian_filter(volume.image.astype(float), SMOOTHING)
    low, high = np.percentile(image, (0.5, 99.7))
    grey: NDArray[np.float64] = np.clip((image - low) / (high - low), 0, 1)
    return grey


def _coloured(grey: NDArray[np.float64], label: NDArray[np.bool_] | None, colour: str) -> Picture:
    picture = np.repeat(grey[..., None], 3, axis=-1)
    if label is not None:
        picture[label] = (1 - TINT) * picture[label] + TINT * np.array(to_rgb(colour))
    return picture


if __name__ == "__main__":
    draw().write(PICTURE)
