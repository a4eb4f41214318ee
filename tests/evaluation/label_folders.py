"""Folders of small label maps, for tests that read files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tiny_dataset import write_image

SHAPE = (6, 8, 10)
SPACING = (5.0, 2.0, 1.0)
DATASET_JSON: dict[str, Any] = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "file_ending": ".nii.gz"}

Box = tuple[slice, slice, slice]


def label_map(boxes: Mapping[int, Box | tuple[int, int, int]], shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Boxes of label values, later ones over earlier ones; axes (slices, height, width)."""
    label = np.zeros(shape, np.uint8)
    for value, box in boxes.items():
        label[box] = value
    return label


def write_folder(folder: Path, label_maps: Mapping[str, NDArray[Any]], spacing: tuple[float, ...] = SPACING) -> Path:
    """Write label maps as ``<identifier>.nii.gz``; ``spacing`` in the order of the array's axes."""
    for identifier, label in label_maps.items():
        write_image(folder / f"{identifier}.nii.gz", label, spacing)
    return folder
