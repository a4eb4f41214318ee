"""From a folder of volumes (see ``nnunet_sfr/conversion/volume_folder.py``) to nnU-Net's raw data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_sfr.conversion import volume_folder
from nnunet_sfr.conversion.raw_dataset import write_images_and_labels
from nnunet_sfr.conversion.source_dataset import DatasetDescription, Split
from nnunet_sfr.conversion.volume_folder import VolumeFolder
from nnunet_sfr.errors import UserError

UNKNOWN = DatasetDescription(channels=("MRI",), labels={"background": 0})
"""Until the labels have been read."""


def open_volumes(
    folder: Path, *, labelled: int, limit_unlabelled: int | None = None, limit_test: int | None = None
) -> VolumeFolder:
    """Read and check a folder of volumes.

    Args:
        folder: of volumes.
        labelled: chooses ``labeled_<N>`` in ``splits.json``.
        limit_unlabelled: take only that many unlabelled cases, the first ones.
        limit_test: the same for test cases.

    Raises:
        UserError: naming the file or the case, and the remedy.
    """
    volumes = volume_folder.open_volume_folder(folder, UNKNOWN, labelled=labelled)
    split = volumes.split
    limited = Split(split.labelled, split.unlabelled[:limit_unlabelled], split.test[:limit_test])
    return replace(volumes, split=limited)


def build_raw_data(volumes: VolumeFolder, dataset: Path) -> None:
    """Copy the volumes into nnU-Net's raw layout; test and unlabelled cases go there without their labels.

    Args:
        volumes: what :func:`open_volumes` returned.
        dataset: the folder to make, ``nnUNet_raw/DatasetXXX_Name``.

    Raises:
        UserError: the labels are not numbered 0, 1, 2 ... as nnU-Net needs them.
    """
    names = {f"label_{value}": value for value in _label_values(volumes) if value > 0}
    content = DatasetDescription(channels=("MRI",), labels={"background": 0, **names})
    write_images_and_labels(replace(volumes, content=content), dataset, bar=False)


def _label_values(volumes: VolumeFolder) -> list[int]:
    values: set[float] = set()
    for case in volumes.split.labelled:
        values |= set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(volumes.label(case))))).tolist())
    found = sorted(values)
    if len(found) < 2 or found != list(range(len(found))):
        raise UserError(
            f"{volumes.folder / 'labels'}: labels must be 0, 1, 2 ... without a gap, got {found}; renumber them"
        )
    return [int(value) for value in found]
