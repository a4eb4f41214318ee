"""When nnU-Net's plan that is there stays, with its edits, instead of being made again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnunet_sfr.atomic import replacing
from nnunet_sfr.command_lines import DEFAULT_CONFIGURATION
from nnunet_sfr.nnunet_json import read_plans
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.planner_names import planner_in
from nnunet_sfr.planning.fingerprint import is_outdated

_INTENSITIES = "foreground_intensity_properties_per_channel"


def plan_to_keep(
    paths: SFRPaths,
    planner_class: type[ExperimentPlanner],
    fingerprint: Mapping[str, Any],
    target_spacing: Sequence[float] | None,
) -> dict[str, Any] | None:
    """nnU-Net's plan on disk, where the planner would make it from the same images and for the same grid.

    Args:
        paths: of the plan.
        planner_class: that is asked for.
        fingerprint: of the raw data as they are now.
        target_spacing: in mm, for 3d_fullres, axes as the reader returns them; None for what the plan has.

    Returns:
        the plan; None where there is none, or another one is to take its place.

    Raises:
        UserError: the plan on disk is damaged.
    """
    if not paths.plans_file.is_file() or is_outdated(fingerprint, paths.plans_name):
        return None
    plans = read_plans(paths.plans_file, "correct it, or delete it and run the same command again")
    if planner_in(plans) != planner_class.__name__ or not _agrees_with(plans, fingerprint):
        return None
    return plans if target_spacing is None or _has_spacing(plans, target_spacing) else None


def _agrees_with(plans: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> bool:
    """Whether the plan has what nnU-Net takes over from the fingerprint and people do not edit.

    The fingerprints of earlier versions do not say which plans were made from them.
    """
    axes = plans["transpose_forward"]
    spacing, shape = (np.median(fingerprint[key], axis=0)[axes] for key in ("spacings", "shapes_after_crop"))
    taken_over = {
        "original_median_spacing_after_transp": spacing.tolist(),
        "original_median_shape_after_transp": [round(length) for length in shape.tolist()],
        _INTENSITIES: fingerprint.get(_INTENSITIES),
    }
    return all(plans.get(key, value) == value for key, value in taken_over.items())


def _has_spacing(plans: Mapping[str, Any], target_spacing: Sequence[float]) -> bool:
    spacing = plans["configurations"].get(DEFAULT_CONFIGURATION, {}).get("spacing")
    return bool(spacing == [target_spacing[axis] for axis in plans["transpose_forward"]])


def copy_what_planners_copy(paths: SFRPaths) -> None:
    """Put the files of the raw data beside the plan that nnU-Net's planners put there: ``dataset.json`` as it is now,
    and folds where there are none.

    Args:
        paths: of the plan.

    Raises:
        UserError: a file cannot be written.
    """
    _copy_if_other(paths.raw_dataset_json, paths.dataset_json)
    if paths.raw_splits_file.is_file() and not paths.splits_file.is_file():
        _copy_if_other(paths.raw_splits_file, paths.splits_file)


def _copy_if_other(source: Path, target: Path) -> None:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
