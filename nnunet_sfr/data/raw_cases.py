"""The labelled and unlabelled cases of a raw data set: listed, and checked as far as names tell.

Raw file names are nnU-Net's: ``imagesTr/<identifier>_<channel, 4 digits><ending>`` with the label in
``labelsTr/<identifier><ending>``, or whatever the key ``dataset`` of ``dataset.json`` names; unlabelled images lie in
``imagesUl`` under the same naming scheme. What belongs to an image (:mod:`nnunet_sfr.data.sidecars`) lies beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_sfr.data.dataset_json import channel_names, read_raw_dataset_json
from nnunet_sfr.data.file_identity import FileStamp, file_stamps, identify, raw_file_hashes
from nnunet_sfr.data.image_names import channel_problem, group_channels, image_name
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import FileHashes, json_hash, while_hashing
from nnunet_sfr.paths import DATASET_JSON, LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES


@dataclass(frozen=True)
class RawCase:
    """One raw case.

    Args:
        identifier: nnU-Net's name of the case.
        images: one file per channel, in the order of the channels.
        label: its label file; None for an unlabelled case.
        sidecars: files that belong to the images.
        label_sidecars: files that belong to the label.
    """

    identifier: str
    images: tuple[Path, ...]
    label: Path | None = None
    sidecars: tuple[Path, ...] = ()
    label_sidecars: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that the case is read from."""
        label = () if self.label is None else (self.label,)
        return (*self.images, *label, *self.sidecars, *self.label_sidecars)


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
    labelled: tuple[RawCase, ...]
    unlabelled: tuple[RawCase, ...]

    @property
    def cases(self) -> tuple[RawCase, ...]:
        return (*self.labelled, *self.unlabelled)

    @property
    def num_channels(self) -> int:
        return len(channel_names(self.dataset_json))

    @cached_property
    def hashes(self) -> FileHashes:
        """Of its files, as far as they are known from earlier calls."""
        return raw_file_hashes(self.folder.name)

    def stamp(self) -> str:
        """A hash that changes with the name or content of any file of any case and with ``dataset.json``."""
        cases = while_hashing(self.cases, "case")
        return CONTENT_STAMP + self._stamp({case.identifier: identify(case.files, self.hashes) for case in cases})

    def stamp_of_times(self) -> str:
        """What earlier versions took for a stamp: times of change in the place of content, so that copies differ."""
        return self._stamp({case.identifier: file_stamps(case.files) for case in self.cases})

    def _stamp(self, files: Mapping[str, list[FileStamp]]) -> str:
        parts = {case.identifier: [case.label is not None, files[case.identifier]] for case in self.cases}
        return json_hash([self.dataset_json, parts])

    def is_that_of(self, stamps: Collection[str]) -> bool:
        """Whether one of these stamps, of whatever version, stands for the raw data as they are now."""
        if self.stamp_of_times() in stamps:
            return True
        return any(stamp.startswith(CONTENT_STAMP) for stamp in stamps) and self.stamp() in stamps


CONTENT_STAMP = "content:"
"""Begins a stamp of contents."""


def list_cases(folder: Path) -> RawDataset:
    """List all cases of a raw data set, and check everything that file names tell.

    Args:
        folder: ``nnUNet_raw/<name>``.

    Raises:
        UserError: no or an incomplete ``dataset.json``, no labelled or no unlabelled cases, a file name that does not
            follow nnU-Net's scheme, a link to nothing or a folder in the place of an image, a missing channel or label,
            an identifier that is both labelled and unlabelled, another number of labelled cases than ``numTraining``.
    """
    dataset_json = read_raw_dataset_json(folder / DATASET_JSON)
    problems: list[str] = []
    labelled = _list_labelled(folder, dataset_json, problems)
    unlabelled = _list_unlabelled(folder / UNLABELLED_IMAGES, dataset_json, problems)
    problems += _problems_of([*labelled, *unlabelled], dataset_json)
    known = {case.identifier for case in labelled}
    problems += [
        f"{case.images[0]}: case {case.identifier} is in imagesTr too; rename or remove one of the two"
        for case in unlabelled
        if case.identifier in known
    ]
    raise_first(problems)
    _require_all_labelled(folder, dataset_json, len(labelled))
    return RawDataset(folder, dataset_json, tuple(labelled), tuple(unlabelled))


def list_labelled(folder: Path, dataset_json: dict[str, Any]) -> tuple[RawCase, ...]:
    """The labelled cases alone, sorted by identifier, checked as :func:`list_cases` checks them.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: of the data set.

    Raises:
        UserError: no labelled cases, a file name that does not follow nnU-Net's scheme, or a missing channel or label.
    """
    problems: list[str] = []
    cases = _list_labelled(folder, dataset_json, problems)
    raise_first(problems + _problems_of(cases, dataset_json))
    return tuple(cases)


def list_unlabelled(
    folder: Path, dataset_json: dict[str, Any], *, images: str = UNLABELLED_IMAGES
) -> tuple[RawCase, ...]:
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
    raise_first(problems + _problems_of(cases, dataset_json))
    return tuple(cases)


def named_files(folder: Path, dataset_json: dict[str, Any]) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """Images and label of every case that the key ``dataset`` of ``dataset.json`` names, by identifier.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: of the data set, with this key.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    # deepcopy: nnU-Net's helper writes absolute paths into what it is given
    entries = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dataset_json))
    return {case: (tuple(map(Path, entry["images"])), Path(entry["label"])) for case, entry in entries.items()}


def raise_first(problems: Sequence[str]) -> None:
    """Raise a UserError that says the first of many problems, one per case, and how many more there are."""
    if problems:
        more = len(problems) - 1
        rest = f" (and {more} more {'case' if more == 1 else 'cases'})" if more else ""
        raise UserError(problems[0] + rest)


def _require_all_labelled(folder: Path, dataset_json: dict[str, Any], found: int) -> None:
    """Compare with ``numTraining``, as nnU-Net's own check does: a case that is not found is no longer missed."""
    named = dataset_json["numTraining"]
    if named != found:
        raise UserError(
            f"{folder / DATASET_JSON}: numTraining is {named}, but {found} labelled cases were found; correct "
            "numTraining, or add the cases that are missing"
        )


def _list_labelled(folder: Path, dataset_json: dict[str, Any], problems: list[str]) -> list[RawCase]:
    images, ending = folder / LABELLED_IMAGES, dataset_json["file_ending"]
    if "dataset" in dataset_json:
        found = [(identifier, *files) for identifier, files in sorted(named_files(folder, dataset_json).items())]
    else:
        # like nnU-Net, pass over files with another ending
        files = [file for file in _files(images, ending, problems) if file.name.endswith(ending)]
        found = [
            (identifier, channels, folder / LABELS / f"{identifier}{ending}")
            for identifier, channels in group_channels(files, ending, problems).items()
        ]
    if not found and not problems:
        raise UserError(f"{images}: no labelled images{_other_ending(images, ending)}")
    return [
        RawCase(identifier, channels, label, sidecars(channels, ending), sidecars([label], ending, is_label=True))
        for identifier, channels, label in found
    ]


def _other_ending(images: Path, ending: str) -> str:
    """What to do about a folder without images of the ending that ``dataset.json`` names."""
    others = sorted({"".join(file.suffixes[-2:]) for file in _files(images, ending, [])})
    if not others:
        return "; put at least one there, and its label into labelsTr"
    return f" that end in {ending}, but files that end in {', '.join(others)}; correct file_ending in dataset.json"


def _list_unlabelled(images: Path, dataset_json: dict[str, Any], problems: list[str]) -> list[RawCase]:
    ending = dataset_json["file_ending"]
    files = [file for file in _files(images, ending, problems) if not file.name.startswith(".")]
    if not files and not problems:
        folders = sorted(entry.name for entry in images.iterdir() if entry.is_dir()) if images.is_dir() else []
        state = "is empty" if images.is_dir() else "not found"
        if folders:
            state = f"has no images, but the folder {folders[0]}, which nnU-Net does not look into"
        raise UserError(
            f"{images}: {state}; put the unlabelled images there, named like <case>_0000{ending}, one file per channel"
        )
    # what belongs to an image is found from its name; everything else has to be an image
    named = [file for file in files if image_name(ending).fullmatch(file.name)]
    cases = [
        RawCase(identifier, channels, sidecars=sidecars(channels, ending))
        for identifier, channels in group_channels(named, ending, problems).items()
    ]
    belonging = {sidecar for case in cases for sidecar in case.sidecars}
    group_channels([file for file in files if file not in {*named, *belonging}], ending, problems)
    return cases


def _files(folder: Path, ending: str, problems: list[str]) -> list[Path]:
    """Files of a folder; links to nothing, and folders that are named like images, go to ``problems``."""
    files = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.is_file():
            files.append(entry)
        elif entry.is_symlink():
            problems.append(_dangling(entry))
        elif entry.name.endswith(ending):
            problems.append(f"{entry}: is no file, but named like an image; rename or remove it")
    return files


def _problems_of(cases: Sequence[RawCase], dataset_json: dict[str, Any]) -> list[str]:
    """The first problem of each case that has one, with its names or its files."""
    num_channels, ending = len(channel_names(dataset_json)), dataset_json["file_ending"]
    problems = []
    for case in cases:
        # files that the key dataset names may be called anything
        free_names = case.label is not None and "dataset" in dataset_json
        name_problem = None if free_names else _name_problem(case, num_channels, ending)
        problems.append(name_problem or _file_problem(case))
    return [problem for problem in problems if problem is not None]


def _name_problem(case: RawCase, num_channels: int, ending: str) -> str | None:
    """A channel file that is missing or too many, or a number in the name of a case that was taken for a channel."""
    whole_names = _labelled_by_whole_name(case, ending)
    if whole_names is None:
        return channel_problem(case.identifier, case.images, num_channels, ending)
    image, label = whole_names
    return (
        f"{image}: its label is {label.name}, so the name has no channel; rename the image to "
        f"{image.name.removesuffix(ending)}_0000{ending}"
    )


def _labelled_by_whole_name(case: RawCase, ending: str) -> tuple[Path, Path] | None:
    """An image and its label, where the label has the image's whole name and none is named after the case."""
    if case.label is None or case.label.is_file():
        return None
    pairs = [(image, case.label.with_name(image.name)) for image in case.images]
    return next((pair for pair in pairs if pair[1].is_file()), None)


def _file_problem(case: RawCase) -> str | None:
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
    for file in (*case.sidecars, *case.label_sidecars):
        if not file.is_file():
            return _dangling(file)
    return None


def _dangling(link: Path) -> str:
    return f"{link}: a link to {link.readlink()}, which is not there; repair or remove it"
