"""Does a preprocessed case fit the plan as it is now: its grid, and all that went into its voxels.

Importing this does not import nnU-Net, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_sfr.data.preprocessed_files import PROVENANCE, damage_explained
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import json_hash
from nnunet_sfr.plans import derived_from
from nnunet_sfr.wording import times

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_CASE_KEYS = (
    "preprocessor_name",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
"""Keys of an nnU-Net configuration, besides those of ``derived_from``, that change a preprocessed case."""

_WITHOUT_STATISTICS = ("ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")
"""nnU-Net's normalisations that look at nothing but the image: new labelled cases leave the others as they are."""


def check_grid(
    properties: Mapping[str, Any],
    shape: Sequence[int],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    case: str = "a case",
) -> None:
    """Check that a preprocessed case fits the plan as it is now.

    Args:
        properties: of the case, as its ``.pkl`` has them.
        shape: of its data; the last three axes count.
        plans_manager: nnU-Net's plan.
        configuration_manager: one configuration of it.
        case: identifier, for the message.

    Raises:
        UserError: the case was made for another target spacing, normalisation or axis order.
    """
    expected = expected_shape(properties, plans_manager, configuration_manager)
    recorded = properties.get(PROVENANCE, {}).get("plan")
    remedy = "run sfr_plan_and_preprocess again"
    if tuple(shape[-3:]) != expected:
        raise UserError(
            f"{case}: preprocessed to {times(shape[-3:])} voxels, where the plan now asks for {times(expected)}: "
            f"a target spacing changed since; {remedy}"
        )
    if recorded is not None and recorded != plan_hash(plans_manager, configuration_manager):
        raise UserError(
            f"{case}: preprocessed under another plan (spacing, normalisation or resampling changed since); {remedy}"
        )


def check_grids(
    cases: nnUNetBaseDataset, plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> None:
    """:func:`check_grid` for every case of one of nnU-Net's data sets.

    Args:
        cases: preprocessed.
        plans_manager: nnU-Net's plan.
        configuration_manager: of that plan.

    Raises:
        UserError: naming the first case that does not fit, or whose files are missing or damaged.
    """
    for identifier in cases.identifiers:
        with damage_explained(Path(cases.source_folder), identifier):
            image, _, _, properties = cases.load_case(identifier)
            check_grid(properties, image.shape, plans_manager, configuration_manager, identifier)


def expected_shape(
    properties: Mapping[str, Any], plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> tuple[int, int, int]:
    """The (D, H, W) that the plan gives a case, from its recorded spacing and its shape after the crop.

    Args:
        properties: of a preprocessed case.
        plans_manager: nnU-Net's plan.
        configuration_manager: of that plan.
    """
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    cropped = properties["shape_after_cropping_and_before_resampling"]
    return preprocessed_shape(cropped, spacing, configuration_manager.spacing)


def preprocessed_shape(
    shape: Sequence[int], spacing: Sequence[float], target_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Shape of a cropped image after nnU-Net's resampling; all axes (D, H, W) after the transposition, spacing in mm.

    A 2D configuration keeps the slices of every case as they are.

    Args:
        shape: (D, H, W) in voxels after the crop.
        spacing: (D, H, W) in mm.
        target_spacing: of the configuration in mm: (D, H, W), or (H, W) in 2D.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    target = with_slice_distance(target_spacing, spacing[0])
    depth, height, width = compute_new_shape(list(shape), list(spacing), target).tolist()
    return depth, height, width


def with_slice_distance(target_spacing: Sequence[float], slice_distance: float) -> list[float]:
    """Spacing (D, H, W) of a preprocessed case in mm; a 2D configuration keeps the distance of a case's own slices.

    Args:
        target_spacing: of the configuration in mm: (D, H, W), or (H, W) in 2D.
        slice_distance: of the case in mm, along the first axis after the transposition.
    """
    return [slice_distance, *target_spacing] if len(target_spacing) == 2 else list(target_spacing)


def plan_hash(plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> str:
    """SHA-256 of all parts of the plan that a preprocessed case depends on.

    Args:
        plans_manager: nnU-Net's plan.
        configuration_manager: of that plan.
    """
    configuration = configuration_manager.configuration
    statistics = plans_manager.foreground_intensity_properties_per_channel
    relevant = {
        **derived_from(plans_manager.plans, configuration),
        **{key: configuration[key] for key in _CASE_KEYS},
        "image_reader_writer": plans_manager.plans["image_reader_writer"],
        "intensities": {
            channel: statistics[str(channel)]
            for channel, scheme in enumerate(configuration_manager.normalization_schemes)
            if scheme not in _WITHOUT_STATISTICS
        },
    }
    return json_hash(relevant)
