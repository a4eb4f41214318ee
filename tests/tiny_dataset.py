"""A raw nnU-Net data set of a few tiny volumes, for tests of every stage.

Each volume is noise around 100 with one bright blob (300) whose mask is the label; sizes vary from case to case. Axes
of ``shape`` are (slices, height, width), as nnU-Net's SimpleITK reader returns them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

NAME = "Dataset042_Tiny"
BACKGROUND, BLOB, NOISE = 100.0, 300.0, 10.0


def make_raw_dataset(
    folder: Path,
    *,
    labelled: int = 3,
    unlabelled: int = 2,
    test: int = 1,
    channels: int = 1,
    shape: tuple[int, int, int] = (18, 22, 20),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    classes: int = 1,
    labels: Mapping[str, Any] | None = None,
    channel_name: str = "MRI",
    seed: int = 0,
    name: str = NAME,
) -> str:
    """Write ``imagesTr``, ``labelsTr``, ``imagesUl``, ``imagesTs``, ``labelsTs`` and ``dataset.json``.

    Cases are called ``train_00``, ``unlabelled_00`` and ``test_00`` and so on; case ``i`` of each folder is ``i % 3``
    voxels larger than ``shape`` on every axis.

    Args:
        folder: becomes ``nnUNet_raw``: the data set is written to ``folder / name``.
        shape: (slices, height, width) in voxels of the smallest case.
        spacing: in mm, the same axes.
        classes: number of nested foreground labels, the brightest in the middle (1 is the whole blob).
        labels: the ``labels`` object of ``dataset.json``; default: background and ``class_1`` ... ``class_<classes>``.
        channel_name: all channels have this name: "CT" asks nnU-Net for its CT normalisation.

    Returns:
        The name of the data set.
    """
    root = Path(folder) / name
    rng = np.random.default_rng(seed)
    groups = (("train", labelled, "Tr", True), ("unlabelled", unlabelled, "Ul", False), ("test", test, "Ts", True))
    for prefix, count, suffix, has_label in groups:
        for index in range(count):
            size = tuple(length + index % 3 for length in shape)
            images, label = blob_case(rng, size, channels=channels, classes=classes)
            write_case(
                root, f"{prefix}_{index:02d}", images, label if has_label else None, suffix=suffix, spacing=spacing
            )
    if labels is None:
        labels = {"background": 0, **{f"class_{value}": value for value in range(1, classes + 1)}}
    dataset_json = {
        "channel_names": {str(channel): channel_name for channel in range(channels)},
        "labels": dict(labels),
        "numTraining": labelled,
        "file_ending": ".nii.gz",
    }
    if any(isinstance(value, list) for value in labels.values()):
        dataset_json["regions_class_order"] = list(range(1, classes + 1))
    (root / "dataset.json").write_text(json.dumps(dataset_json, indent=2))
    return name


def blob_case(
    rng: np.random.Generator, shape: tuple[int, ...], *, channels: int = 1, classes: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """One volume: images (channels, slices, height, width) and label (slices, height, width)."""
    centre = [length * rng.uniform(0.4, 0.6) for length in shape]
    axes = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    radius = np.sqrt(
        sum(((axis - middle) / (0.3 * length)) ** 2 for axis, middle, length in zip(axes, centre, shape, strict=True))
    )
    label = np.zeros(shape, np.uint8)
    for value in range(1, classes + 1):
        label[radius < 1 - (value - 1) / classes] = value
    clean = BACKGROUND + (BLOB - BACKGROUND) * label / classes
    images = clean[None] + NOISE * rng.standard_normal((channels, *shape))
    return images.astype(np.float32), label


def write_case(
    root: Path,
    identifier: str,
    images: NDArray[np.float32],
    label: NDArray[np.uint8] | None,
    *,
    suffix: str,
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> None:
    """Write one case with nnU-Net's file names into ``images<suffix>`` (and ``labels<suffix>``) of ``root``."""
    for channel, image in enumerate(images):
        write_image(root / f"images{suffix}" / f"{identifier}_{channel:04d}.nii.gz", image, spacing)
    if label is not None:
        write_image(root / f"labels{suffix}" / f"{identifier}.nii.gz", label, spacing)


def write_image(file: Path, array: NDArray[Any], spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
    """Write an array as NIfTI; ``spacing`` in mm, in the order of the array's axes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing)))
    SimpleITK.WriteImage(image, str(file))
