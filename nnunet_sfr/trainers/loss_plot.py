"""One picture of every loss term over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunet_sfr.atomic import replacing


def plot_losses(log: Mapping[str, Sequence[float]], terms: Sequence[str], file: Path) -> None:
    """Draw nnU-Net's training and validation loss, pseudo Dice and each term in a panel of its own.

    Args:
        log: one value per epoch for each key.
        terms: keys to draw besides nnU-Net's own.
        file: PNG to write.
    """
    panels = ["train_losses", "val_losses", "ema_fg_dice", *terms]
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        epochs = range(len(log[panel]))
        axis.plot(epochs, log[panel], color="#0072B2", marker="." if len(log[panel]) < 30 else None)
        axis.set_title(panel.replace("_", " "), fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=100)
