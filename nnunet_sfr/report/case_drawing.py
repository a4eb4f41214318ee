"""What is done with one case: its pictures are drawn, and what only the volumes can tell is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from nnunet_sfr.confidence import agreement
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.mosaics import draw_mosaic
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.report.pictures import Colours, draw_image, draw_labels, field_of_view, lay_out, save_image, save_labels
from nnunet_sfr.report.target import Voxel, bounding_box, find_centre
from nnunet_sfr.report.windows import GreyWindow
from nnunet_sfr.sam_stage.stitching import StitchGeometry

THUMBNAIL = 6
"""Blocks along each axis into which an image is averaged, to tell like images from unlike ones."""


@dataclass(frozen=True)
class MosaicFiles:
    """The two files of a mosaic, and how SAM stitched it."""

    image: Path
    labels: Path
    geometry: StitchGeometry


class LabelMaps(Protocol):
    """As much of a pseudo-label store as is drawn."""

    @property
    def folder(self) -> Path:
        """Where they lie."""

    def read_labels(self, identifier: str) -> np.ndarray:
        """Label map (1, D, H, W) of a case."""


@dataclass(frozen=True)
class DrawingTask:
    """What is to be drawn and measured of a case; picklable.

    Args:
        case: identifier.
        images: folder of the preprocessed cases.
        stores: all that have the case, by :attr:`nnunet_sfr.report.label_sources.LabelSource.key`.
        centre_of: whose labels say where the pictures are cut; None for the middle of the image.
        spacing: (D, H, W) in mm.
        orientation: of the preprocessed array.
        colours: by label value.
        num_classes: background included.
        windows: of the grey images; mosaics are drawn in the first.
        image_files: to draw, by key of the window.
        label_files: to draw, by store.
        mosaics: to draw, by store.
        compared: two stores whose labels are compared, if both have the case.
    """

    case: str
    images: Path
    stores: Mapping[str, LabelMaps]
    centre_of: str | None
    spacing: tuple[float, float, float]
    orientation: Orientation
    colours: Colours
    num_classes: int
    windows: Sequence[GreyWindow]
    image_files: Mapping[str, Path] = field(default_factory=dict)
    label_files: Mapping[str, Path] = field(default_factory=dict)
    mosaics: Mapping[str, MosaicFiles] = field(default_factory=dict)
    compared: tuple[str, str] | None = None


@dataclass(frozen=True)
class Measurements:
    """What the volumes of a case tell.

    Args:
        disagreement: 1 - Dice of the two stores that were compared, mean over classes; None without both.
        thumbnail: the turned image in THUMBNAIL^3 blocks, with mean 0 and length 1 (all 0 for a constant image).
    """

    disagreement: float | None
    thumbnail: tuple[float, ...]


def draw_and_measure(task: DrawingTask) -> Measurements:
    """Write the pictures of a case and measure it.

    Raises:
        UserError: a label map does not fit its image.
    """
    image = _read_image(task)
    labels = {key: _read_labels(task, key, image.shape) for key in _needed(task)}
    centre = find_centre(labels[task.centre_of] if task.centre_of else np.zeros(image.shape, np.int8), task.spacing)
    for key, files in task.mosaics.items():
        levels = task.windows[0].levels_of(image)
        drawn = draw_mosaic(image, labels[key], centre, files.geometry, task.orientation, levels, task.colours)
        save_image(drawn[0], files.image)
        save_labels(drawn[1], files.labels)
    _draw_planes(task, image, labels, centre)
    compared = None
    if task.compared is not None:
        one, other = task.compared
        compared = disagreement(labels[one], labels[other], task.num_classes)
    return Measurements(compared, thumbnail(task.orientation.turn(image)))


def _needed(task: DrawingTask) -> set[str]:
    needed = {*task.label_files, *task.mosaics, *(task.compared or ())}
    return needed | {task.centre_of} if task.centre_of else needed


def _read_image(task: DrawingTask) -> np.ndarray:
    """First channel, (D, H, W)."""
    data, _, _, _ = UnlabelledDataset(task.images, [task.case]).load_case(task.case)
    image: np.ndarray = data[0]
    return image


def _read_labels(task: DrawingTask, key: str, shape: tuple[int, ...]) -> np.ndarray:
    store = task.stores[key]
    labels: np.ndarray = store.read_labels(task.case)[0]
    if labels.shape != shape:
        raise UserError(
            f"{store.folder}: the pseudo-label of {task.case} has shape {labels.shape}, its preprocessed image "
            f"{shape}; run sfr_pseudolabel again with --overwrite"
        )
    return labels


def _draw_planes(task: DrawingTask, image: np.ndarray, labels: Mapping[str, np.ndarray], centre: Voxel) -> None:
    if not task.image_files and not task.label_files:
        return
    turn = task.orientation.turn
    spacing = task.orientation.turn_spacing(task.spacing)
    turned_centre = task.orientation.turn_voxel(centre, image.shape)
    turned = turn(image)
    view = field_of_view(turned.shape, spacing, turned_centre)
    layout = lay_out(turned[view].shape, spacing)
    z, y, x = (middle - side.start for middle, side in zip(turned_centre, view, strict=True))
    for window in task.windows:
        if window.key in task.image_files:
            picture = draw_image(
                turned[view], layout, (z, y, x), window.levels_of(image), is_oriented=task.orientation.is_known
            )
            save_image(picture, task.image_files[window.key])
    for key, file in task.label_files.items():
        save_labels(draw_labels(turn(labels[key])[view], layout, (z, y, x), task.colours), file)


def disagreement(labels: np.ndarray, others: np.ndarray, num_classes: int) -> float:
    """1 - Dice of two label maps, mean over the classes that either has; 0 if neither has any foreground.

    Args:
        labels: (D, H, W).
        others: the same shape.
        num_classes: background included.
    """
    foreground = (labels > 0) | (others > 0)
    if not foreground.any():
        return 0.0
    box = bounding_box(foreground)  # the rest of a large image would only take time
    dice = agreement(torch.from_numpy(labels[box]), torch.from_numpy(others[box]), num_classes=num_classes)
    return 0.0 if dice is None else 1.0 - dice


def thumbnail(image: np.ndarray) -> tuple[float, ...]:
    """An image (z, y, x) as THUMBNAIL^3 block means, centred and of length 1, so that products are correlations."""
    blocks = F.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None], THUMBNAIL)
    values = blocks.flatten().double().numpy()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return tuple(np.round(values / length if length else values, 4).tolist())
