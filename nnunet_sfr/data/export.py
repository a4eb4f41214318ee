"""Label maps from the preprocessed grid back to the grid of the original image, as files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from tqdm import tqdm

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.label_resampling import is_nnunet_default, resample_labels
from nnunet_sfr.data.preprocessed_grid import with_slice_distance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import file_errors_explained


def to_original_grid(labels: np.ndarray, properties: dict[str, Any], dataset: SFRDataset) -> np.ndarray:
    """Undo nnU-Net's preprocessing of a label map: resampling, cropping and transposition, in this order.

    Args:
        labels: (1, D, H, W) on the preprocessed grid; values below 0 are background.
        properties: of the case, as nnU-Net recorded them.
        dataset: gives the plan.

    Returns:
        The label map on the original grid, in the axis order in which nnU-Net's reader gives the image.
    """
    plans = dataset.plans_manager
    original_spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    spacing = with_slice_distance(dataset.configuration_manager.spacing, original_spacing[0])
    resampled = _resample(
        np.maximum(labels, 0),
        properties["shape_after_cropping_and_before_resampling"],
        spacing,
        original_spacing,
        dataset.configuration_manager,
    )
    full = np.zeros(properties["shape_before_cropping"], dtype=np.uint8 if labels.max() < 256 else np.uint16)
    full = insert_crop_into_image(full, resampled, properties["bbox_used_for_cropping"])
    original: np.ndarray = full.transpose(plans.transpose_backward)
    return original


def _resample(
    labels: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    original_spacing: Sequence[float],
    configuration: ConfigurationManager,
) -> np.ndarray:
    """From (1, D, H, W) to (D, H, W) of ``shape``."""
    if is_nnunet_default(configuration.configuration):
        separate: bool | None = configuration.configuration["resampling_fn_seg_kwargs"].get("force_separate_z")
        return resample_labels(labels[0], shape, spacing, original_spacing, force_separate_z=separate)
    resampled: np.ndarray = np.asarray(configuration.resampling_fn_seg(labels, shape, spacing, original_spacing))[0]
    return resampled


def export_pseudo_labels(store: PseudoLabelStore, dataset: SFRDataset, folder: Path) -> None:
    """Write the pseudo-labels of all present cases in the data set's file format, named as nnU-Net names label files.

    Args:
        store: to read.
        dataset: it belongs to.
        folder: to write to.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    writer = dataset.plans_manager.image_reader_writer_class()
    ending = dataset.dataset_json["file_ending"]
    there = sorted(set(cases.identifiers) & set(store.identifiers()))
    with _filled_at_once(folder) as temporary:
        for identifier in tqdm(there, desc="Exporting pseudo-labels"):
            _, _, _, properties = cases.load_case(identifier)
            labels = to_original_grid(store.read_labels(identifier), properties, dataset)
            # a writer may make more than one file (the TIFF writer puts the spacing beside the image)
            writer.write_seg(labels, str(temporary / f"{identifier}{ending}"), properties)


@contextlib.contextmanager
def _filled_at_once(folder: Path) -> Iterator[Path]:
    """A hidden folder within another, whose files move there when all are written; on failure nothing is left."""
    is_new = not folder.exists()
    try:
        with file_errors_explained():
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".") as temporary:
                yield Path(temporary)
                for file in sorted(Path(temporary).iterdir()):
                    os.replace(file, folder / file.name)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
