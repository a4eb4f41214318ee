"""nnU-Net's raw layout, written from any source of volumes.

::

    Dataset120_LA/
        dataset.json
        imagesTr/, labelsTr/       labelled cases
        imagesUl/                  unlabelled cases
        imagesTs/, labelsTs/       test cases and their truth, for sfr_evaluate
        imagesVal/, labelsVal/     validation cases, where a list sets some aside
        labelsUl_truth/            truth of the unlabelled cases, to measure pseudo-labels by; no training reads it
        sfr_convert.json           where all this is from, and who is what
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_sfr import __version__
from nnunet_sfr.atomic import free_bytes, is_left_over, nearest_existing, replacing, write_json
from nnunet_sfr.conversion.checking import check_all, progress_file
from nnunet_sfr.conversion.source_dataset import SourceDataset, Split
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.paths import (
    DATASET_JSON,
    LABELLED_IMAGES,
    LABELS,
    PREPROCESSED,
    RAW,
    RESULTS,
    TEST_IMAGES,
    TEST_LABELS,
    UNLABELLED_IMAGES,
    is_set,
    nnunet_root,
)
from nnunet_sfr.replacement import earlier_folder, kept_aside, remove_kept_aside, set_aside

TEST_TRUTH, UNLABELLED_TRUTH, VALIDATION_TRUTH = TEST_LABELS, "labelsUl_truth", "labelsVal"
RECORD = "sfr_convert.json"
FIRST_FREE_NUMBER = 500
"""Where the search for a number begins: nnU-Net keeps the first ten, and people number theirs from there."""
_RESERVE = 1.1
"""Disk space that is asked for, over the size of what is read."""


_NUMBERED = re.compile(r"(?P<hidden>\..*\.)?Dataset(?P<number>\d{3})_(?P<name>.*)")
"""Names of data sets, and of those that are being written."""


def dataset_folder(number: int | None, name: str) -> Path:
    """``nnUNet_raw/DatasetNNN_<name>``, which need not exist.

    Args:
        number: None for that of the data set of this name, or else the first one from 500 on that is free in all of
            nnU-Net's folders that are set.
        name: of the data set.

    Raises:
        UserError: nnUNet_raw is not set, another data set has this number, or two have this name.
    """
    root = nnunet_root(RAW)
    if number is None:
        return root / _folder_name(name)
    folder = root / f"{_prefix(number)}{name}"
    _require_free_number(folder, [*_data_sets(), *_being_written()])
    return folder


def _require_free_number(folder: Path, others: Iterable[Path]) -> None:
    """Refuse a number that another data set has."""
    numbered = _NUMBERED.fullmatch(folder.name)
    for other in others:
        found = _NUMBERED.fullmatch(other.name)
        if numbered and found and found["number"] == numbered["number"] and found["name"] != numbered["name"]:
            # written by another machine or container, whose processes cannot be seen from here
            stopped = ", or delete this folder if the sfr_convert that began it has ended" if found["hidden"] else ""
            raise UserError(f"{other}: has the number {int(found['number'])} already; choose another with -d{stopped}")


def _folder_name(name: str) -> str:
    """That of the data set of this name, or with the first free number."""
    there = _data_sets()
    same = list({entry.name: entry for entry in there if entry.name[len(_prefix(0)) :] == name}.values())
    if len(same) > 1:
        raise UserError(f"{same[0]} and {same[1].name}: have the same name; choose a number with -d")
    if same:
        return same[0].name
    numbered = [match for entry in (*there, *_being_written()) if (match := _NUMBERED.fullmatch(entry.name))]
    # the one that is being written may be of a stopped call: what that has checked is noted under its number
    begun = next((int(match["number"]) for match in numbered if match["name"] == name), None)
    taken = {int(match["number"]) for match in numbered}
    free = begun or next((number for number in range(FIRST_FREE_NUMBER, 1000) if number not in taken), None)
    if free is None:
        raise UserError(
            f"{nnunet_root(RAW)}: has no free number from {FIRST_FREE_NUMBER} to 999; choose another with -d"
        )
    return f"{_prefix(free)}{name}"


def _data_sets() -> list[Path]:
    """The data sets in nnU-Net's folders: one of which the raw data are gone keeps its number, and so does one that a
    conversion had set aside when it was killed.
    """
    roots = [nnunet_root(variable) for variable in (RAW, PREPROCESSED, RESULTS) if is_set(variable)]
    folders = [*roots, *map(earlier_folder, roots)]
    return sorted(entry for folder in folders for entry in folder.glob("Dataset[0-9][0-9][0-9]_*"))


def _being_written() -> list[Path]:
    """The hidden folders of conversions that are at work."""
    there = nnunet_root(RAW).glob(".*.Dataset[0-9][0-9][0-9]_*") if is_set(RAW) else ()
    return sorted(entry for entry in there if not is_left_over(entry))


def _prefix(number: int) -> str:
    return f"Dataset{number:03d}_"


def convert_source(
    source: SourceDataset, dataset: Path, *, overwrite: bool = False, processes: int = 1, bar: bool = True
) -> None:
    """Check every case, then write a whole raw data set, truth and record too, or nothing.

    Args:
        source: the volumes.
        dataset: the folder to make, ``nnUNet_raw/DatasetNNN_Name``.
        overwrite: replace ``dataset``, if a conversion wrote it.
        processes: cases to check at a time.
        bar: show a progress bar while writing.

    Raises:
        UserError: the folder exists and may not be replaced, another data set has taken its number, a volume cannot be
            used, or there is no room.
    """
    _settle_replacement(dataset)
    check_target(dataset, overwrite=overwrite)
    checks = [source.check(case) for cases in source.split.by_group().values() for case in cases]
    progress = progress_file(dataset)
    check_all(checks, progress, processes=processes)
    require_space(dataset, [file for check in checks for file in check.files])
    # another conversion may have been faster: asked before the writing, and after it
    _require_free_number(dataset, [*_data_sets(), *_being_written()])
    try:
        with replacing(dataset) as temporary:
            write_images_and_labels(source, temporary, bar=bar)
            write_truth(source, temporary)
            record = {**source.record, **source.split.by_group(), "nnunet_sfr_version": __version__}
            write_json(record, temporary / RECORD)
            check_target(dataset, overwrite=overwrite)
            _require_free_number(dataset, _data_sets())
            set_aside(dataset)
    finally:
        _settle_replacement(dataset)
    progress.unlink(missing_ok=True)


def _settle_replacement(dataset: Path) -> None:
    """Remove what was set aside once the new data set is in its place; put it back if that was stopped before."""
    kept = kept_aside(dataset)
    with file_errors_explained():
        if kept.exists() and not dataset.exists():
            os.rename(kept, dataset)
        remove_kept_aside(dataset)


def check_target(dataset: Path, *, overwrite: bool) -> None:
    """Refuse to replace a data set without being told to, and in any case one that is not from a conversion.

    Args:
        dataset: folder of a raw data set that is to be written.
        overwrite: whether one of an earlier conversion may be replaced.

    Raises:
        UserError: it is there and may not be replaced, or is a link.
    """
    if dataset.is_symlink():
        raise UserError(f"{dataset}: is a link, which sfr_convert does not replace; remove it, or choose another -d")
    if not dataset.exists():
        return
    if not overwrite:
        raise UserError(f"{dataset}: exists; add --overwrite to replace it, or choose another number with -d")
    if not (dataset / RECORD).is_file():
        raise UserError(f"{dataset}: has no {RECORD}, so sfr_convert did not write it and will not delete it; move it")


def require_space(dataset: Path, files: Sequence[Path]) -> None:
    """Refuse a conversion for which the disk has no room; what is written is about as large as what is read.

    Args:
        dataset: folder that is to be written; need not exist.
        files: that will be read.
    """
    needed = int(sum(file.stat().st_size for file in files) * _RESERVE)
    free = free_bytes(dataset.parent)
    if needed > free:
        folder = nearest_existing(dataset.parent)
        raise UserError(f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free; make room first")


def write_images_and_labels(source: SourceDataset, dataset: Path, *, bar: bool = True) -> None:
    """Write all images, the labels of the labelled cases, and ``dataset.json``.

    Args:
        source: the volumes.
        dataset: the folder to make.
        bar: show a progress bar.

    Raises:
        UserError: a volume cannot be used.
    """
    split = source.split
    for folder in (LABELLED_IMAGES, UNLABELLED_IMAGES, TEST_IMAGES):
        (dataset / folder).mkdir(parents=True)
    if split.validation:
        (dataset / "imagesVal").mkdir()
    for folder, case in tqdm(list(_image_folders(split)), desc="Writing images", unit="case", disable=not bar):
        source.write_images(case, dataset / folder)
    _write_labels(source, split.labelled, dataset / LABELS)
    dataset_json: dict[str, Any] = {**source.dataset_json, "numTraining": len(split.labelled)}
    if source.origin is not None:
        dataset_json["sfr_convert"] = {**source.origin, "labelled": list(split.labelled)}
    write_json(dataset_json, dataset / DATASET_JSON)


def write_truth(source: SourceDataset, dataset: Path) -> None:
    """Write the labels that training must not see, of those cases that have one.

    Args:
        source: cases and their labels.
        dataset: folder of the raw data set.

    Raises:
        UserError: a label cannot be used.
    """
    split = source.split
    truths = {TEST_TRUTH: split.test, UNLABELLED_TRUTH: split.unlabelled}
    if split.validation:
        truths[VALIDATION_TRUTH] = split.validation
    for folder, cases in truths.items():
        _write_labels(source, [case for case in cases if source.has_label(case)], dataset / folder)


def _image_folders(split: Split) -> Iterator[tuple[str, str]]:
    for folder, cases in (
        (LABELLED_IMAGES, split.labelled),
        (UNLABELLED_IMAGES, split.unlabelled),
        (TEST_IMAGES, split.test),
        ("imagesVal", split.validation),
    ):
        for case in cases:
            yield folder, case


def _write_labels(source: SourceDataset, cases: Sequence[str], folder: Path) -> None:
    folder.mkdir()
    for case in cases:
        source.write_label(case, folder)
