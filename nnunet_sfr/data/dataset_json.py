"""nnU-Net's ``dataset.json`` of the raw data: read, and checked for the types that nnU-Net's format gives its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.nnunet_json import WRITE_DATASET_JSON


def read_raw_dataset_json(file: Path) -> dict[str, Any]:
    """Read the ``dataset.json`` of a raw data set.

    Raises:
        UserError: it is missing, not JSON, lacks a key or has a value of another type than nnU-Net's format.
    """
    content = read_json(file, WRITE_DATASET_JSON)
    if "channel_names" not in content and "modality" not in content:
        raise UserError(f"{file}: the key channel_names is missing; add it")
    for key in ("labels", "numTraining", "file_ending"):
        if key not in content:
            raise UserError(f"{file}: the key {key} is missing; add it")
    for key, (fits, words) in _TYPES.items():
        if key in content and not fits(content[key]):
            raise UserError(f"{file}: {key} must be {words}, got {_shortened(content[key])}; correct it")
    # all of nnU-Net's readers come with it, which takes longer than everything else here
    from nnunet_sfr.data.readers import require_known_reader

    require_known_reader(content, file)
    return content


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """The names of the channels, in the order that nnU-Net gives them; ``modality`` is its older name of the key."""
    names: dict[str, str] = dataset_json["channel_names" if "channel_names" in dataset_json else "modality"]
    return list(names.values())


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(fits, value))


def _is_object(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(fits, value.values()))


def _are_channels(value: object) -> bool:
    return _is_object(value, _is_text)


def _is_label(value: object) -> bool:
    return _is_whole_number(value) or _is_list(value, _is_whole_number)


def _is_case(value: object) -> bool:
    return isinstance(value, dict) and _is_list(value.get("images"), _is_text) and _is_text(value.get("label"))


_CHANNELS = 'an object of numbers and names, as {"0": "CT"}'
_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "channel_names": (_are_channels, _CHANNELS),
    "modality": (_are_channels, _CHANNELS),
    "labels": (
        lambda value: _is_object(value, _is_label),
        'an object of names and whole numbers (or lists of them, for regions), as {"background": 0, "liver": 1}',
    ),
    "numTraining": (_is_whole_number, "the number of labelled cases"),
    "file_ending": (
        lambda value: _is_text(value) and value.startswith("."),
        "the ending of the image files with its dot, as .nii.gz",
    ),
    "dataset": (
        lambda value: _is_object(value, _is_case),
        "an object of cases, each with images (a list of files) and label (a file)",
    ),
    "regions_class_order": (lambda value: _is_list(value, _is_whole_number), "a list of label values"),
}
"""What a value has to be, for every key that is read here, and the same in words."""

_LONGEST = 80


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
