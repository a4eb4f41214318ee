"""One picture of every loss term over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_sfr.atomic import replacing

_TITLES = {
    "train_losses": "training loss",
    "val_losses": "validation loss",
    "ema_fg_dice": "pseudo Dice (moving average)",
}
"""What nnU-Net's keys mean."""


def plot_losses(log: Mapping[str, Sequence[float]], terms: Sequence[str], file: Path) -> None:
    """Draw nnU-Net's training and validation loss, pseudo Dice and each term in a panel of its own.

    Args:
        log: one value per epoch for each key.
        terms: keys to draw besides nnU-Net's own.
        file: PNG to write.
    """
    # nnU-Net's own plot leaves seaborn's style with huge letters behind
    with matplotlib.style.context("default"), replacing(file) as temporary:
        _draw(log, ["train_losses", "val_losses", "ema_fg_dice", *terms]).savefig(temporary, dpi=100)


def _draw(log: Mapping[str, Sequence[float]], panels: Sequence[str]) -> Figure:
    columns = 4
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        values = log[panel]
        axis.plot(range(len(values)), values, color="#0072B2", marker="." if len(values) < 30 else None)
        axis.set_title(_TITLES.get(panel, panel.replace("_", " ")))
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure
