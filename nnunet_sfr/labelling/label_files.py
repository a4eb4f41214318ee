"""Label maps in files, one per unlabelled case: found, and checked against images and labels of the data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.data.cases import Case
from nnunet_sfr.data.checks import read_label
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError


def find_label_files(folder: Path, identifiers: Sequence[str], ending: str) -> dict[str, Path]:
    """The label file of every case, by identifier.

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


def check_label_file(file: Path, case: Case, properties: Mapping[str, Any], dataset: SFRDataset) -> None:
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
    shape = (1, *(transposed[axis] for axis in dataset.plans_manager.transpose_backward))
    if label.shape != shape:
        raise UserError(
            f"{file}: {_size(label.shape)} voxels, but the image of case {case.identifier} has {_size(shape)}; "
            "a label map has to lie on the grid of the original image"
        )
    for name, tolerance in _tolerances(properties).items():
        is_, should = _geometry(found)[name], _geometry(properties)[name]
        if not np.allclose(is_, should, atol=tolerance):
            raise UserError(
                f"{file}: {name} {_numbers(is_)}, but the image of case {case.identifier} has {_numbers(should)}; "
                "a label map has to lie on the grid of the original image"
            )
    _check_values(label, file, case, dataset)


def _check_values(label: np.ndarray, file: Path, case: Case, dataset: SFRDataset) -> None:
    labels = dataset.label_manager
    classes = [value for value in labels.all_labels if value != labels.ignore_label]
    unknown = label[~np.isin(label, classes)]
    if not unknown.size:
        return
    if unknown.min() == labels.ignore_label:
        what = f"the ignore label {labels.ignore_label}: a pseudo-label has to name a class"
    else:
        what = f"the value {unknown.min():g}, which is no label in dataset.json"
    raise UserError(f"{file}: case {case.identifier} has {what}")


def _geometry(properties: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What nnU-Net's readers tell of where an image lies: spacing always, the rest depends on the reader."""
    geometry = {"spacing": np.asarray(properties["spacing"], float)}
    if "sitk_stuff" in properties:
        itk = properties["sitk_stuff"]
        geometry |= {"origin": np.asarray(itk["origin"]), "direction": np.asarray(itk["direction"])}
    if "nibabel_stuff" in properties:
        affines = properties["nibabel_stuff"]
        affine = np.asarray(affines.get("reoriented_affine", affines["original_affine"]))
        geometry |= {"origin": affine[:3, 3], "direction": affine[:3, :3]}
    return geometry


def _tolerances(properties: Mapping[str, Any]) -> dict[str, float]:
    """How far a number may be off besides nnU-Net's relative 1e-5 (numpy's), which allows nothing around 0.

    Headers in single precision put 1e-7 in the place of a 0.
    """
    smallest = float(np.min(properties["spacing"]))
    return {name: {"origin": 1e-3 * smallest, "direction": 1e-5}.get(name, 1e-8) for name in _geometry(properties)}


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in np.ravel(np.asarray(values)))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[1:]))
