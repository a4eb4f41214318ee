"""Label maps in files, one per unlabelled case: found, and checked against images and labels of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.data.reading import read_label
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import shortest


def find_label_files(folder: Path, identifiers: Sequence[str], ending: str) -> dict[str, Path]:
    """The label file of every case, by identifier.

    Args:
        folder: with ``<identifier><ending>``.
        identifiers: of the cases.
        ending: of the files, such as ``.nii.gz``.

    Raises:
        UserError: no such folder, or a case without a file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; name the folder with the label maps, <case>{ending}")
    files = {identifier: folder / f"{identifier}{ending}" for identifier in identifiers}
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: not found ({len(missing)} of {len(files)} label maps are missing); every unlabelled case "
            f"needs one, called <case>{ending}"
        )
    return files


def check_label_file(file: Path, case: RawCase, properties: Mapping[str, Any], dataset: SFRDataset) -> None:
    """Check a label map against the image that it labels.

    Args:
        file: to check.
        case: the raw image.
        properties: of the preprocessed image, which keep the original's geometry.
        dataset: names labels and reader.

    Raises:
        UserError: the file cannot be read, lies on another grid than the image, or holds a value that is no class.
    """
    label, found = read_label(dataset.plans_manager.image_reader_writer_class, file, case)
    transposed = properties["shape_before_cropping"]
    shape = [transposed[axis] for axis in dataset.plans_manager.transpose_backward]
    require_same_grid(file, (label.shape[1:], found), (shape, properties), case.identifier)
    _check_values(label, file, case, dataset)


def _check_values(label: np.ndarray, file: Path, case: RawCase, dataset: SFRDataset) -> None:
    labels = dataset.label_manager
    classes = [value for value in labels.all_labels if value != labels.ignore_label]
    unknown = label[~np.isin(label, classes)]
    if not unknown.size:
        return
    if unknown.min() == labels.ignore_label:
        what = f"the ignore label {labels.ignore_label}: a pseudo-label has to name a class"
    else:
        what = f"the value {shortest(unknown.min())}, which is no label in dataset.json"
    raise UserError(f"{file}: case {case.identifier} has {what}")
