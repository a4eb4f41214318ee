"""The label maps that a user brings back: found, and checked before anything changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_sfr.data.checks import label_values
from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.raw_cases import RawCase, RawDataset, raise_first
from nnunet_sfr.data.readers import find_reader
from nnunet_sfr.data.reading import read_label
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES
from nnunet_sfr.silence import without_printing
from nnunet_sfr.wording import shortest


@dataclass(frozen=True)
class LabelMaps:
    """What a folder of label maps brings.

    Args:
        new: files by identifier, of unlabelled cases.
        known: identifiers of labelled cases that have this very label already.
    """

    new: Mapping[str, Path]
    known: tuple[str, ...]


def find_label_maps(folder: Path, raw: RawDataset) -> LabelMaps:
    """Sort the files of a folder by what they are.

    Args:
        folder: of label maps, ``<case><file ending>``.
        raw: the listed data set.

    Raises:
        UserError: no such folder or nothing in it, a file that is no label map of a case, a case that is labelled
            already with another label, another file in the place of one that is to come, or no case left unlabelled.
    """
    ending = raw.dataset_json["file_ending"]
    names = f"<case>{ending}, with unlabelled cases of {raw.folder.name}"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "not found"
        raise UserError(f"{folder}: {what}; name the folder with the label maps, {names}")
    files = {file.name: file for file in sorted(folder.iterdir()) if not file.name.startswith(".")}
    if not files:
        raise UserError(f"{folder}: is empty; put label maps there, {names}")
    labelled = {f"{case.identifier}{ending}": case for case in raw.labelled}
    unlabelled = {f"{case.identifier}{ending}": case for case in raw.unlabelled}
    maps = [file for name, file in files.items() if name in {*labelled, *unlabelled}]
    belonging = {sidecar.name for file in maps for sidecar in sidecars([file], ending, is_label=True)}
    problems = [
        f"{file}: is no label map of an unlabelled case; remove it, or call it {names}"
        for name, file in files.items()
        if name not in {*labelled, *unlabelled, *belonging}
    ]
    known = {case.identifier: files[name] for name, case in labelled.items() if name in files}
    problems += [_conflict(files[name], case) for name, case in labelled.items() if name in files]
    new = {case.identifier: files[name] for name, case in unlabelled.items() if name in files}
    problems += [_occupied(raw, case, files[name]) for name, case in unlabelled.items() if name in files]
    raise_first([problem for problem in problems if problem])
    if len(new) == len(raw.unlabelled):
        raise UserError(
            f"{folder}: labels every unlabelled case, and SFR needs one; leave one out, or train nnU-Net alone on "
            "all of them"
        )
    return LabelMaps(new, tuple(known))


def _conflict(file: Path, case: RawCase) -> str:
    """What is wrong with a label map of a labelled case; nothing if it is the label that the case has."""
    assert case.label is not None
    if file_hash(file) == file_hash(case.label):
        return ""
    return (
        f"{file}: case {case.identifier} is labelled already, by {case.label}; to change its label replace that file "
        "and run sfr_plan_and_preprocess"
    )


def _occupied(raw: RawDataset, case: RawCase, file: Path) -> str:
    """What lies in the place of a file that is to come; nothing if every place is free."""
    labels, images = raw.folder / LABELS, raw.folder / LABELLED_IMAGES
    belonging = sidecars([file], raw.dataset_json["file_ending"], is_label=True)
    places = [labels / own.name for own in (file, *belonging)]
    # where dataset.json lists the cases, files in imagesTr can belong to none
    places += [images / own.name for own in (*case.images, *case.sidecars)]
    for place in places:
        if os.path.lexists(place):
            what = "one of the two labels" if place.parent == labels else "one of the two"
            return f"{place}: is there, though case {case.identifier} is in {UNLABELLED_IMAGES}; remove {what}"
    return ""


def check_label_maps(maps: Mapping[str, Path], raw: RawDataset, *, processes: int) -> None:
    """Read every label map and check its grid and its values.

    Args:
        maps: files by identifier.
        raw: the listed data set.
        processes: processes that read in parallel.

    Raises:
        UserError: a file that cannot be read, lies on another grid than its image, or has a value that dataset.json
            does not name.
    """
    if not maps:
        return
    values = label_values(raw)
    cases = [case for case in raw.unlabelled if case.identifier in maps]
    reader = find_reader(raw.dataset_json, cases[0].images[0], f"the image of case {cases[0].identifier}")
    tasks = [_Check(maps[case.identifier], case, reader, values) for case in cases]
    found = run_parallel(_problem, tasks, processes=processes, description="Checking label maps")
    raise_first([problem for problem in found if problem])


@dataclass(frozen=True)
class _Check:
    """One task of :func:`check_label_maps`."""

    file: Path
    case: RawCase
    reader: type[BaseReaderWriter]
    values: tuple[int, ...]


def _problem(task: _Check) -> str:
    """What is wrong with a label map; nothing if it can be taken."""
    file, case = task.file, task.case
    try:
        label, properties = read_label(task.reader, file, case)
        with without_printing():  # the TIFF reader remarks on every image
            image, wanted = task.reader().read_images([str(image) for image in case.images])
        require_same_grid(file, (label.shape[1:], properties), (image.shape[1:], wanted), case.identifier)
    except UserError as problem:
        return str(problem)
    except MemoryError:
        return f"{file}: memory ran out; use fewer processes (-np)"
    unknown = label[~np.isin(label, task.values)]
    if not unknown.size:
        return ""
    return (
        f"{file}: case {case.identifier} has the label {shortest(unknown.min())}, which dataset.json does not name; "
        "fix the label map"
    )
