"""What is read of nnU-Net's own JSON files, and its shape; without nnU-Net, which is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import Shape, read_json, read_json_list, require_shape

PLAN_AGAIN = "run sfr_plan_and_preprocess"
WRITE_DATASET_JSON = "write it as nnU-Net's data set format asks for"
"""The remedy for a ``dataset.json`` of raw data that does not pass."""

DATASET: Shape = {
    "channel_names?": {...: str},
    "modality?": {...: str},
    "labels": {...: int | list},
    "file_ending": str,
    "numTraining?": int,
    "regions_class_order?": list,
    "dataset?": {...: {"images": [str], "label": str}},
}
"""``dataset.json``, of the raw data or beside preprocessed cases."""

CONFIGURATION: Shape = {
    "data_identifier": str,
    "preprocessor_name": str,
    "batch_size": int,
    "patch_size": [int],
    "spacing": [float],
    "normalization_schemes": [str],
    "use_mask_for_norm": [bool],
    "previous_stage?": str | None,
}
"""A configuration of a plan, with what it inherits."""

PLANS: Shape = {
    "plans_name": str,
    "image_reader_writer": str,
    "transpose_forward": [int],
    "transpose_backward": [int],
    "configurations": {...: {"inherits_from?": str}},
}
"""A plan."""

PLANNED_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
"""What nnU-Net's planners can make; others are added to a plan by hand."""
CASCADE = "3d_cascade_fullres"
NO_CASCADE = "is the second stage of a cascade, which SFR does not train; use 3d_lowres or 3d_fullres"

OWN_KEY = "nnunet_sfr"
"""Of our part of ``dataset_fingerprint.json``: which raw data it was made from."""
LABELS_ADDED = "labels_added"
"""In our part: which cases were labelled later, and the stamp of the raw data with them.

The fingerprint's own stamp stays that of the raw data that it was made from, so that sfr_plan_and_preprocess makes it
again."""
OUTDATED_PLANS = "outdated_plans"
"""In our part: names of nnU-Net's plans that were made from an earlier fingerprint, of other raw data."""

FINGERPRINT_SHAPE: Shape = {"spacings": [[float]], "shapes_after_crop": [[int]]}

_SPLIT: Shape = {"train": [str], "val": [str]}


def read_dataset_json(file: Path, remedy: str = PLAN_AGAIN) -> dict[str, Any]:
    """``dataset.json``.

    Args:
        file: to read.
        remedy: what to do if it cannot be read, for the error.

    Raises:
        UserError: it is missing or of another shape.
    """
    return read_json(file, remedy, DATASET)


def read_plans(file: Path, remedy: str = PLAN_AGAIN) -> dict[str, Any]:
    """A plan with all its configurations.

    Args:
        file: to read.
        remedy: what to do if it cannot be read, for the error.

    Raises:
        UserError: it is missing or of another shape.
    """
    return read_json(file, remedy, PLANS)


def resolved_configuration(
    plans: dict[str, Any], configuration: str, file: Path, remedy: str = PLAN_AGAIN
) -> dict[str, Any]:
    """A configuration of a plan, with what it inherits from others filled in.

    Args:
        plans: from :func:`read_plans`.
        configuration: nnU-Net's name of it.
        file: that the plan is from, for the message.
        remedy: what to do about a plan that does not pass.

    Raises:
        UserError: there is no such configuration, it inherits from itself, or is of another shape.
    """
    configurations = plans["configurations"]
    resolved: dict[str, Any] = {}
    ancestors: list[str] = []
    name: str | None = configuration
    while name is not None:
        if name not in configurations:
            raise UserError(f"{file}: has no configuration {name}; choose -c from {', '.join(configurations)}")
        if name in ancestors:
            raise UserError(f"{file}: configuration {name} inherits from itself; {remedy}")
        ancestors.append(name)
        resolved = {**configurations[name], **resolved}
        name = configurations[name].get("inherits_from")
    require_shape(resolved, CONFIGURATION, f"{file}: configuration {configuration}", remedy)
    return resolved


def check_configuration(configuration: str, plans_file: Path | None) -> None:
    """Refuse a configuration that no plan will have, before anything is computed or written.

    Args:
        configuration: after ``-c``.
        plans_file: nnU-Net's plan, which need not exist yet; None for one that is to be made again.

    Raises:
        UserError: there is no such configuration, SFR does not train it, or the plan that is there is damaged.
    """
    remedy = "correct it, or delete it and run the same command again"
    added = {}
    if plans_file is not None and plans_file.is_file():
        added = read_plans(plans_file, remedy)["configurations"]
    known = [name for name in dict.fromkeys([*PLANNED_CONFIGURATIONS, *added]) if name != CASCADE]
    if configuration == CASCADE:
        raise UserError(f"-c {CASCADE}: {NO_CASCADE}")
    if configuration not in known:
        raise UserError(f"-c {configuration}: no such configuration; choose from {', '.join(known)}")


def read_splits(file: Path) -> list[dict[str, Any]]:
    """nnU-Net's folds: ``train`` and ``val``, lists of identifiers, and whatever else an entry has.

    Raises:
        UserError: the file is missing or of another shape.
    """
    return read_json_list(file, "correct it, or delete it and nnU-Net's folds are made", _SPLIT)


def read_fingerprint(file: Path, remedy: str = PLAN_AGAIN) -> dict[str, Any]:
    """``dataset_fingerprint.json``, with our part of it where planning was ours.

    Args:
        file: to read.
        remedy: what to do if it cannot be read, for the error.

    Raises:
        UserError: it is missing or of another shape.
    """
    own: Shape = {"stamp?": str, f"{LABELS_ADDED}?": {}, f"{OUTDATED_PLANS}?": [str]}
    return read_json(file, remedy, {**FINGERPRINT_SHAPE, f"{OWN_KEY}?": own})
