"""The labelled and unlabelled cases of a raw data set: listed, and checked as far as names tell.

Raw file names are nnU-Net's: ``imagesTr/<identifier>_<channel, 4 digits><ending>`` with the label in
``labelsTr/<identifier><ending>``, or whatever the key ``dataset`` of ``dataset.json`` names; unlabelled images lie in
``imagesUl`` under the same naming scheme.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import DATASET_JSON, LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES


@dataclass(frozen=True)
class Case:
    """One raw case.

    Args:
        identifier: nnU-Net's name of the case.
        images: one file per channel, in the order of the channels.
        label: its label file; None for an unlabelled case.
    """

    identifier: str
    images: tuple[Path, ...]
    label: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class RawDataset:
    """A listed raw data set.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: its ``dataset.json``.
        labelled: cases of ``imagesTr``, sorted by identifier.
        unlabelled: cases of ``imagesUl``, sorted by identifier.
    """

    folder: Path
    dataset_json: dict[str, Any]
    labelled: tuple[Case, ...]
    unlabelled: tuple[Case, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        return (*self.labelled, *self.unlabelled)

    @property
    def num_channels(self) -> int:
        return len(channel_names(self.dataset_json))

    def stamp(self) -> str:
        """A hash that changes with any file of any case (name, size, time of change) and with ``dataset.json``."""
        files = {case.identifier: [case.label is not None, file_stamps(case.files)] for case in self.cases}
        content = json.dumps([self.dataset_json, files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def file_stamps(files: Iterable[Path]) -> list[list[str | int]]:
    """Name, size in bytes and time of the last change in ns of every file: equal stamps mean unchanged files."""
    statuses = [(file.name, file.stat()) for file in files]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in statuses]


def list_cases(folder: Path) -> RawDataset:
    """List all cases of a raw data set, and check everything that file names tell.

    Args:
        folder: ``nnUNet_raw/<name>``.

    Raises:
        UserError: no or an incomplete ``dataset.json``, no labelled or no unlabelled cases, a file name that does not
            follow nnU-Net's scheme, a link to nothing or a folder in the place of an image, a missing channel or label,
            an identifier that is both labelled and unlabelled, another number of labelled cases than ``numTraining``.
    """
    dataset_json = read_dataset_json(folder / DATASET_JSON)
    problems: list[str] = []
    labelled = _list_labelled(folder, dataset_json, problems)
    unlabelled = _list_unlabelled(folder / UNLABELLED_IMAGES, dataset_json, problems)
    num_channels, ending = len(channel_names(dataset_json)), dataset_json["file_ending"]
    for case in (*labelled, *unlabelled):
        # files that the key dataset names may be called anything
        free_names = case.label is not None and "dataset" in dataset_json
        problem = None if free_names else _channel_problem(case, num_channels, ending)
        problem = problem or _file_problem(case)
        problems += [problem] if problem else []
    known = {case.identifier for case in labelled}
    problems += [
        f"{case.images[0]}: case {case.identifier} is in imagesTr too; rename or remove one of the two"
        for case in unlabelled
        if case.identifier in known
    ]
    raise_first(problems)
    _require_all_labelled(folder, dataset_json, len(labelled))
    return RawDataset(folder, dataset_json, tuple(labelled), tuple(unlabelled))


def list_labelled(folder: Path, dataset_json: dict[str, Any]) -> tuple[Case, ...]:
    """The labelled cases alone, sorted by identifier, checked as :func:`list_cases` checks them.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: of the data set.

    Raises:
        UserError: no labelled cases, a file name that does not follow nnU-Net's scheme, or a missing channel or label.
    """
    problems: list[str] = []
    cases = _list_labelled(folder, dataset_json, problems)
    num_channels, ending = len(channel_names(dataset_json)), dataset_json["file_ending"]
    free_names = "dataset" in dataset_json  # files that the key dataset names may be called anything
    found = [
        (None if free_names else _channel_problem(case, num_channels, ending)) or _file_problem(case) for case in cases
    ]
    raise_first(problems + [problem for problem in found if problem])
    return tuple(cases)


def list_unlabelled(folder: Path, dataset_json: dict[str, Any], *, images: str = UNLABELLED_IMAGES) -> tuple[Case, ...]:
    """The unlabelled cases alone, sorted by identifier, checked as :func:`list_cases` checks them.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: of the data set.
        images: another folder of images without labels beside them, ``imagesTs`` for example.

    Raises:
        UserError: no unlabelled cases, a file name that does not follow nnU-Net's scheme, or a missing channel.
    """
    problems: list[str] = []
    cases = _list_unlabelled(folder / images, dataset_json, problems)
    num_channels, ending = len(channel_names(dataset_json)), dataset_json["file_ending"]
    found = [_channel_problem(case, num_channels, ending) or _file_problem(case) for case in cases]
    raise_first(problems + [problem for problem in found if problem])
    return tuple(cases)


def raise_first(problems: Sequence[str]) -> None:
    """Raise a UserError that says the first of many problems, one per case, and how many more there are."""
    if problems:
        more = len(problems) - 1
        rest = f" (and {more} more {'case' if more == 1 else 'cases'})" if more else ""
        raise UserError(problems[0] + rest)


def read_dataset_json(file: Path) -> dict[str, Any]:
    """``dataset.json``, with the keys that are read here in their types.

    Raises:
        UserError: the file or a key is missing, or a key has another type.
    """
    content = read_json(file, "write it as nnU-Net's data set format asks for")
    if "channel_names" not in content and "modality" not in content:
        raise UserError(f"{file}: the key channel_names is missing; add it")
    for key in ("labels", "numTraining", "file_ending"):
        if key not in content:
            raise UserError(f"{file}: the key {key} is missing; add it")
    for key, (kind, words) in _TYPES.items():
        value = content.get(key)
        if key in content and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(f"{file}: {key} must be {words}, got {value!r}; correct it")
    return content


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "channel_names": (dict, 'an object of numbers and names, as {"0": "CT"}'),
    "modality": (dict, 'an object of numbers and names, as {"0": "CT"}'),
    "labels": (dict, 'an object of names and values, as {"background": 0, "liver": 1}'),
    "numTraining": (int, "the number of labelled cases"),
    "file_ending": (str, "the ending of the image files, as .nii.gz"),
    "dataset": (dict, "an object of cases with the keys images and label"),
    "regions_class_order": (list, "a list of label values"),
}
"""Keys of ``dataset.json`` that are read here, with the type that nnU-Net's format gives them."""


def _require_all_labelled(folder: Path, dataset_json: dict[str, Any], found: int) -> None:
    """Compare with ``numTraining``, as nnU-Net's own check does: a case that is not found is no longer missed."""
    named = dataset_json["numTraining"]
    if named != found:
        raise UserError(
            f"{folder / 'dataset.json'}: numTraining is {named}, but {found} labelled cases were found; correct "
            "numTraining, or add the cases that are missing"
        )


def channel_names(dataset_json: dict[str, Any]) -> list[str]:
    """The names of the channels, in the order that nnU-Net gives them; ``modality`` is its older name of the key."""
    names: dict[str, str] = dataset_json["channel_names" if "channel_names" in dataset_json else "modality"]
    return list(names.values())


def _list_labelled(folder: Path, dataset_json: dict[str, Any], problems: list[str]) -> list[Case]:
    images = folder / LABELLED_IMAGES
    if "dataset" in dataset_json:
        # deepcopy: nnU-Net's helper writes absolute paths into what it is given
        entries = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dataset_json))
        cases = [
            Case(identifier, tuple(map(Path, entry["images"])), Path(entry["label"]))
            for identifier, entry in sorted(entries.items())
        ]
    else:
        ending = dataset_json["file_ending"]
        # like nnU-Net, pass over files with another ending
        files = [file for file in _files(images, ending, problems) if file.name.endswith(ending)]
        labels = folder / LABELS
        cases = [
            Case(identifier, channels, labels / f"{identifier}{ending}")
            for identifier, channels in _group_channels(files, ending, problems).items()
        ]
    if not cases and not problems:
        raise UserError(f"{images}: no labelled images{_other_ending(images, dataset_json['file_ending'])}")
    return cases


def _other_ending(images: Path, ending: str) -> str:
    """What to do about a folder without images of the ending that ``dataset.json`` names."""
    others = sorted({"".join(file.suffixes[-2:]) for file in _files(images, ending, [])})
    if not others:
        return "; put at least one there, and its label into labelsTr"
    return f" that end in {ending}, but files that end in {', '.join(others)}; correct file_ending in dataset.json"


def _list_unlabelled(images: Path, dataset_json: dict[str, Any], problems: list[str]) -> list[Case]:
    ending = dataset_json["file_ending"]
    files = [file for file in _files(images, ending, problems) if not file.name.startswith(".")]
    if not files and not problems:
        state = "is empty" if images.is_dir() else "not found"
        raise UserError(
            f"{images}: {state}; put the unlabelled images there, named like <case>_0000{ending}, one file per channel"
        )
    return [Case(identifier, channels) for identifier, channels in _group_channels(files, ending, problems).items()]


def _files(folder: Path, ending: str, problems: list[str]) -> list[Path]:
    """Files of a folder; links to nothing, and folders that are named like images, go to ``problems``."""
    files = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.is_file():
            files.append(entry)
        elif entry.is_symlink():
            problems.append(f"{entry}: a link to {entry.readlink()}, which is not there; repair or remove it")
        elif entry.name.endswith(ending):
            problems.append(f"{entry}: is no file, but named like an image; rename or remove it")
    return files


def _group_channels(files: Sequence[Path], ending: str, problems: list[str]) -> dict[str, tuple[Path, ...]]:
    """Files by identifier, in the order of identifiers and channels; names that do not match go to ``problems``."""
    pattern = re.compile(r"(?P<identifier>.+)_\d{4}" + re.escape(ending))
    groups: dict[str, list[Path]] = {}
    for file in sorted(files):
        match = pattern.fullmatch(file.name)
        if match is None or file.name.startswith("."):
            problems.append(f"{file}: the name is not of the form <case>_0000{ending}; rename or remove the file")
        else:
            groups.setdefault(match["identifier"], []).append(file)
    return {identifier: tuple(groups[identifier]) for identifier in sorted(groups)}


def _channel_problem(case: Case, num_channels: int, ending: str) -> str | None:
    """A channel file that is missing or too many.

    A single file may hold all channels (an RGB picture, a 4D volume): then only reading it can tell.
    """
    expected = [f"{case.identifier}_{channel:04d}{ending}" for channel in range(num_channels)]
    present = [file.name for file in case.images]
    if present in (expected, expected[:1]):
        return None
    if present and not set(present) & set(expected):
        return (
            f"{case.images[0]}: the number behind the last _ is that of a channel, and no file of case "
            f"{case.identifier} is of channel 0; if it belongs to the name of the case, add _0000 before {ending}"
        )
    wrong = min(set(expected).symmetric_difference(present))
    what = "is missing" if wrong in expected else f"is more than the {num_channels} that dataset.json names"
    return (
        f"{case.images[0].parent / wrong}: this channel of case {case.identifier} {what}; "
        "every case needs one file per channel"
    )


def _file_problem(case: Case) -> str | None:
    """A name that nnU-Net cannot use, or a file that is not there."""
    if case.identifier.endswith("_seg"):
        return f"{case.images[0]}: nnU-Net keeps names that end in _seg for itself; rename the case"
    for file in case.images:
        if not file.is_file():
            return f"{file}: image of case {case.identifier} not found; correct its entry in dataset.json"
    if case.label is not None and not case.label.is_file():
        return (
            f"{case.label}: label of case {case.identifier} not found; add it, or move the image to {UNLABELLED_IMAGES}"
        )
    return None
