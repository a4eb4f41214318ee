"""nnU-Net's raw layout, written from any source of volumes.

::

    Dataset120_LA/
        dataset.json
        imagesTr/, labelsTr/       labelled cases
        imagesUl/                  unlabelled cases
        imagesTs/, labelsTs/       test cases and their truth, for sfr_evaluate
        labelsUl_truth/            truth of the unlabelled cases, to measure pseudo-labels by; no training reads it
        sfr_convert.json           where all this is from, and who is what
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import DATASET_JSON, LABELLED_IMAGES, LABELS, TEST_IMAGES, UNLABELLED_IMAGES, nnunet_root

ENDING = ".nii.gz"
TEST_TRUTH, UNLABELLED_TRUTH = "labelsTs", "labelsUl_truth"
RECORD = "sfr_convert.json"


@dataclass(frozen=True)
class Split:
    """Which case serves for what; the three share no case."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    test: tuple[str, ...]


class Source(Protocol):
    """Where the volumes come from; whoever opened it has checked that every file that it needs is there."""

    @property
    def split(self) -> Split: ...

    def has_label(self, case: str) -> bool: ...

    def write_image(self, case: str, file: Path) -> None:
        """Write the one channel of a case as NIfTI."""

    def write_label(self, case: str, file: Path) -> None:
        """Write its label map as NIfTI, on the grid of the image."""


@dataclass(frozen=True)
class Content:
    """What ``dataset.json`` says.

    Args:
        channel: name of the one channel ("CT" asks nnU-Net for its CT normalisation).
        labels: value by name, 0 for the background, without gaps.
    """

    channel: str
    labels: Mapping[str, int]


def dataset_folder(number: int, name: str) -> Path:
    """``nnUNet_raw/DatasetNNN_<name>``, which need not exist.

    Raises:
        UserError: nnUNet_raw is not set, or another data set there has this number.
    """
    root = nnunet_root("nnUNet_raw")
    folder = root / f"Dataset{number:03d}_{name}"
    others = sorted(entry.name for entry in root.glob(f"Dataset{number:03d}_*") if entry != folder)
    if others:
        raise UserError(f"{root / others[0]}: has the number {number} already; choose another with -d")
    return folder


def convert_source(
    source: Source,
    content: Content,
    dataset: Path,
    *,
    record: Mapping[str, object],
    overwrite: bool,
    bar: bool = True,
) -> None:
    """Write a whole raw data set, truth and record too, or nothing.

    Args:
        source: the volumes.
        content: of ``dataset.json``.
        dataset: the folder to make, ``nnUNet_raw/DatasetNNN_Name``.
        record: what ``sfr_convert.json`` says of the source; the split joins it.
        overwrite: replace ``dataset``, if a conversion wrote it.
        bar: show a progress bar.

    Raises:
        UserError: the folder exists and may not be replaced, or a volume cannot be used.
    """
    check_target(dataset, overwrite=overwrite)
    with replacing(dataset) as temporary:
        write_images_and_labels(source, content, temporary, bar=bar)
        write_truth(source, content, temporary)
        write_json({**record, **asdict(source.split), "nnunet_sfr_version": __version__}, temporary / RECORD)
        if dataset.exists():
            shutil.rmtree(dataset)


def check_target(dataset: Path, *, overwrite: bool) -> None:
    """Refuse to replace a data set without being told to, and in any case one that is not from a conversion."""
    if not dataset.exists():
        return
    if not overwrite:
        raise UserError(f"{dataset}: exists; add --overwrite to replace it, or choose another number with -d")
    if not (dataset / RECORD).is_file():
        raise UserError(f"{dataset}: has no {RECORD}, so sfr_convert did not write it and will not delete it; move it")


def write_images_and_labels(source: Source, content: Content, dataset: Path, *, bar: bool = True) -> None:
    """Write all images, the labels of the labelled cases, and ``dataset.json``.

    Args:
        source: the volumes.
        content: of ``dataset.json``.
        dataset: the folder to make.
        bar: show a progress bar.

    Raises:
        UserError: a volume cannot be used.
    """
    split = source.split
    for folder in (LABELLED_IMAGES, UNLABELLED_IMAGES, TEST_IMAGES):
        (dataset / folder).mkdir(parents=True)
    for folder, case in tqdm(list(_image_folders(split)), desc="Writing images", unit="case", disable=not bar):
        source.write_image(case, dataset / folder / f"{case}_0000{ENDING}")
    _write_labels(source, split.labelled, content, dataset / LABELS)
    dataset_json = {
        "channel_names": {"0": content.channel},
        "labels": dict(content.labels),
        "numTraining": len(split.labelled),
        "file_ending": ENDING,
    }
    write_json(dataset_json, dataset / DATASET_JSON)


def write_truth(source: Source, content: Content, dataset: Path) -> None:
    """Write the labels that training must not see, of those test and unlabelled cases that have one.

    Raises:
        UserError: a label cannot be used.
    """
    for folder, cases in ((TEST_TRUTH, source.split.test), (UNLABELLED_TRUTH, source.split.unlabelled)):
        _write_labels(source, [case for case in cases if source.has_label(case)], content, dataset / folder)


def _image_folders(split: Split) -> Iterator[tuple[str, str]]:
    for folder, cases in (
        (LABELLED_IMAGES, split.labelled),
        (UNLABELLED_IMAGES, split.unlabelled),
        (TEST_IMAGES, split.test),
    ):
        for case in cases:
            yield folder, case


def _write_labels(source: Source, cases: Sequence[str], content: Content, folder: Path) -> None:
    folder.mkdir()
    for case in cases:
        file = folder / f"{case}{ENDING}"
        source.write_label(case, file)
        _check_label(file, case, content)


def _check_label(file: Path, case: str, content: Content) -> None:
    try:
        values = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(file)))).tolist()
    except RuntimeError:
        raise UserError(f"{case}: its label cannot be read as NIfTI; replace the file") from None
    unknown = [value for value in values if value not in content.labels.values()]
    if unknown:
        names = ", ".join(f"{value} ({name})" for name, value in content.labels.items())
        raise UserError(f"{case}: its label has the value {unknown[0]}, where only {names} are known; mend the label")
