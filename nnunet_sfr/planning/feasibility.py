"""What nnU-Net plans without a word and cannot train: networks of too few stages, and cases of no or endless voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_sfr.data.preprocessed_grid import preprocessed_shape
from nnunet_sfr.data.raw_cases import RawDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.nnunet_json import read_plans
from nnunet_sfr.planning.planners import MOST_VOXELS
from nnunet_sfr.wording import times

FEWEST_STAGES = 3
"""nnU-Net's deep supervision leaves out the outputs of the two coarsest stages; with none left its loss is not a number
(two stages), or its trainer fails (one)."""
_NO_RESAMPLING = "no_resampling_hack"
"""nnU-Net's function that leaves images as they are."""


def require_configurations(
    plans: Mapping[str, Any], configurations: Sequence[str], file: Path, *, kept: bool = False
) -> None:
    """Check that the configurations that are asked for are planned, before the plans are written.

    Args:
        plans: nnU-Net's, as its planner makes them, or as they are kept.
        configurations: names.
        file: where the plans will be; what is there and is not planned now stays there.
        kept: whether they are those of the file.

    Raises:
        UserError: naming those that there are.
    """
    remedy = "correct it, or delete it and run the same command again"
    present = read_plans(file, remedy)["configurations"] if file.is_file() else ()
    known = list(dict.fromkeys([*plans["configurations"], *present]))
    for name in configurations:
        if name not in known:
            again = "; if it was removed by hand, --clean makes the plan again" if kept else ""
            raise UserError(f"{file}: has no configuration {name}; choose -c from {', '.join(known)}{again}")


def require_trainable(
    plans: Mapping[str, Any], configurations: Sequence[str], raw: RawDataset, fingerprint: Mapping[str, Any]
) -> None:
    """Check the plans of the configurations that are asked for, before they are written.

    Args:
        plans: nnU-Net's, as its planner makes them.
        configurations: of which those that the plans do not have are passed over.
        raw: the listed data set.
        fingerprint: of all its images.

    Raises:
        UserError: a network that nnU-Net cannot train, or a case that the target spacing leaves no voxels or too many.
    """
    manager = PlansManager(dict(plans))
    for name in configurations:
        if name in plans["configurations"]:
            configuration = manager.get_configuration(name)
            _require_resampling(raw, name, configuration)
            _require_stages(raw, name, configuration)
            _require_sizes(raw, name, configuration, manager.transpose_forward, fingerprint)


def _require_resampling(raw: RawDataset, name: str, configuration: ConfigurationManager) -> None:
    """Refuse a plan that leaves every case on its own grid: SAM's patches and labels are of one spacing."""
    if configuration.configuration["resampling_fn_data"] == _NO_RESAMPLING:
        raise UserError(
            f"{raw.folder}: the planner leaves the cases of {name} on their own grids ({_NO_RESAMPLING}), and the SAM "
            "stage needs one spacing; choose another -pl"
        )


def _require_stages(raw: RawDataset, name: str, configuration: ConfigurationManager) -> None:
    stages = len(configuration.pool_op_kernel_sizes)
    if stages >= FEWEST_STAGES:
        return
    size = times(round(length) for length in configuration.median_image_size_in_voxels)
    raise UserError(
        f"{raw.folder}: the volumes are too small for {name}: at {times(configuration.spacing)} mm they have {size} "
        f"voxels (median), for which nnU-Net plans a network of {stages} stages, and it trains none of fewer than "
        f"{FEWEST_STAGES}; take larger images, or a finer grid with -overwrite_target_spacing"
    )


def _require_sizes(
    raw: RawDataset,
    name: str,
    configuration: ConfigurationManager,
    axes: Sequence[int],
    fingerprint: Mapping[str, Any],
) -> None:
    cases = zip(raw.cases, fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True)
    for case, shape, spacing in cases:
        found = preprocessed_shape(
            [shape[axis] for axis in axes], [spacing[axis] for axis in axes], configuration.spacing
        )
        if min(found) >= 1 and np.prod(found, dtype=float) <= MOST_VOXELS:
            continue
        raise UserError(
            f"{case.images[0]}: case {case.identifier}, of {times(shape)} voxels of {times(spacing)} mm, would have "
            f"{times(found)} voxels in {name}, at {times(configuration.spacing)} mm; correct its spacing if it is "
            "wrong, or set -overwrite_target_spacing"
        )
