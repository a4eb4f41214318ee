"""One look at one unlabelled case: its pictures, and what only the volumes themselves can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from nnunet_sfr.confidence import agreement
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.mosaics import Stitching, draw_mosaic
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.report.pictures import Colours, draw_planes, grey_levels, save_picture
from nnunet_sfr.report.target import bounding_box, find_centre

THUMBNAIL = 6
"""Blocks along each axis into which an image is averaged, to tell like images from unlike ones."""


@dataclass(frozen=True)
class Look:
    """What is to be done with a case; picklable.

    Args:
        case: identifier.
        images: folder of the preprocessed unlabelled cases.
        stores: all that have the case, by :attr:`LabelSource.key`.
        centre_of: whose labels say where the pictures are cut; None for the middle of the image.
        spacing: (D, H, W) in mm.
        orientation: of the preprocessed array.
        colours: by label value.
        num_classes: background included.
        plain: file of the picture without labels, if it is to be drawn.
        pictures: files to draw, by store.
        mosaics: files to draw with their geometry, by store.
        compared: two stores whose labels are compared, if both have the case.
    """

    case: str
    images: Path
    stores: Mapping[str, PseudoLabelStore]
    centre_of: str | None
    spacing: tuple[float, float, float]
    orientation: Orientation
    colours: Colours
    num_classes: int
    plain: Path | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)
    mosaics: Mapping[str, tuple[Path, Stitching]] = field(default_factory=dict)
    compared: tuple[str, str] | None = None


@dataclass(frozen=True)
class Measured:
    """What a look found.

    Args:
        disagreement: 1 - Dice of the two stores that were compared, mean over classes; None without both.
        thumbnail: the turned image in THUMBNAIL^3 blocks, with mean 0 and length 1 (all 0 for a constant image).
    """

    disagreement: float | None
    thumbnail: tuple[float, ...]


def look_at(look: Look) -> Measured:
    """Draw and measure.

    Raises:
        UserError: a label map does not fit its image.
    """
    image = _read_image(look)
    labels = {key: _read_labels(look, key, image.shape) for key in _needed(look)}
    centre = find_centre(labels[look.centre_of] if look.centre_of else np.zeros(image.shape, np.int8), look.spacing)
    levels = grey_levels(image)
    for key, (file, stitching) in look.mosaics.items():
        save_picture(draw_mosaic(image, labels[key], centre, stitching, levels, look.colours), file)
    _draw_planes(look, image, labels, centre, levels)
    compared = None
    if look.compared is not None:
        one, other = look.compared
        compared = disagreement(labels[one], labels[other], look.num_classes)
    return Measured(compared, thumbnail(look.orientation.turn(image)))


def _needed(look: Look) -> set[str]:
    needed = {*look.pictures, *look.mosaics, *(look.compared or ())}
    return needed | {look.centre_of} if look.centre_of else needed


def _read_image(look: Look) -> np.ndarray:
    """First channel, (D, H, W)."""
    data, _, _, _ = UnlabelledDataset(look.images, [look.case]).load_case(look.case)
    image: np.ndarray = data[0]
    return image


def _read_labels(look: Look, key: str, shape: tuple[int, ...]) -> np.ndarray:
    store = look.stores[key]
    labels: np.ndarray = store.read_labels(look.case)[0]
    if labels.shape != shape:
        raise UserError(
            f"{store.folder}: the pseudo-label of {look.case} has shape {labels.shape}, its preprocessed image "
            f"{shape}; run sfr_pseudolabel again with --overwrite"
        )
    return labels


def _draw_planes(
    look: Look,
    image: np.ndarray,
    labels: Mapping[str, np.ndarray],
    centre: tuple[int, int, int],
    levels: tuple[float, float],
) -> None:
    turn = look.orientation.turn
    turned = turn(image)
    spacing = look.orientation.turn_spacing(look.spacing)
    turned_centre = look.orientation.turn_voxel(centre, image.shape)
    files: list[tuple[Path, np.ndarray | None]] = [(file, turn(labels[key])) for key, file in look.pictures.items()]
    if look.plain is not None:
        files.append((look.plain, None))
    for file, shown in files:
        save_picture(draw_planes(turned, shown, turned_centre, spacing, levels, look.colours), file)


def disagreement(labels: np.ndarray, others: np.ndarray, num_classes: int) -> float:
    """1 - Dice of two label maps (D, H, W), mean over the classes that either has; 0 if neither found anything."""
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
