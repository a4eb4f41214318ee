"""The SFR plan of a configuration: made from nnU-Net's plan, kept with its edits where it still fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.command_lines import AUTO
from nnunet_sfr.ct_windows import MEDSAM_WINDOWS, choose_window
from nnunet_sfr.devices import resolve_device
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import first_difference
from nnunet_sfr.nnunet_json import OWN_KEY
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.planner_names import CPU_PLANNER, is_made_for_gpu
from nnunet_sfr.planning.labels import PLANNED_PSEUDO_LABELS
from nnunet_sfr.planning.mosaic import choose_slice_axes, choose_stitching, data_extent
from nnunet_sfr.planning.requested_sam import NO_REQUEST, RequestedSAM
from nnunet_sfr.planning.schedule import choose_fine_tuning
from nnunet_sfr.plans import SFRConfiguration, derived_from, load_configuration, read_sfr_plan, save_configuration
from nnunet_sfr.sam_models import DEFAULT_MODEL, find_model
from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.sam_stage.lighter_sam import why_hours
from nnunet_sfr.sam_stage.weights import require_weights
from nnunet_sfr.settings import FineTuningSettings, SAMSettings
from nnunet_sfr.wording import times

_OF_SAM = ("stitching", "sam", "fine_tuning")
"""The sections of the SFR plan that are planned for one SAM."""


def check_sam(file: Path, configuration: str, wanted: RequestedSAM, *, overwrite: bool) -> None:
    """Refuse a SAM that cannot be planned or whose weights cannot be had, before anything is computed.

    Args:
        file: the SFR plan, which need not exist.
        configuration: nnU-Net's name of it.
        wanted: which SAM.
        overwrite: whether the plan will be made again in any case.

    Raises:
        UserError: model, adaptation and checkpoint do not go together, or the weights are missing.
    """
    present = _present_entry(file, configuration)
    settled = wanted.settled(present)
    planned = present is not None and not overwrite and not wanted.differing_from(present)
    try:
        # which adaptation a new plan takes makes no difference here
        settings = _sam_settings(settled, for_gpu=False)
    except ValueError as error:
        in_plan = planned or not wanted.options()
        where = f"{file}: configuration {configuration}: sam" if in_plan else wanted.options()
        raise UserError(f"{where}: {error}") from None
    given = None if settings.checkpoint is None else Path(settings.checkpoint)
    require_weights(find_model(settings.model), given, file if planned else None)


def update_sfr_plan(
    paths: SFRPaths,
    plans_manager: PlansManager,
    fingerprint: dict[str, Any],
    *,
    wanted: RequestedSAM = NO_REQUEST,
    overwrite: bool = False,
) -> SFRConfiguration:
    """Write the SFR plan of one configuration, or keep the one that is there and still fits (it may be edited).

    Args:
        paths: of the configuration.
        plans_manager: nnU-Net's plan.
        fingerprint: of all images.
        wanted: which SAM.
        overwrite: make it again in any case.

    Raises:
        UserError: the present plan fits but one of its settings is not valid.
    """
    file, name = paths.sfr_plans_file, paths.configuration
    present = _present_entry(file, name)
    reason = _reason_to_plan_again(present, plans_manager, name, wanted, overwrite)
    fresh = make_sfr_plan(plans_manager, name, fingerprint, wanted.settled(present))
    if reason is None:
        kept = load_configuration(
            file,
            name,
            nnunet_plans=plans_manager.plans,
            nnunet_configuration=plans_manager.get_configuration(name).configuration,
        )
        hint = ""
        if kept.stitching != fresh.stitching:
            hint = f", where planning again would give {_mosaic(fresh)}: --overwrite_sfr_plan takes that"
        print(f"SFR plan of {name}: {_mosaic(kept)}; kept from {file}{hint}")
        _say_other_iterations(paths, kept.fine_tuning, fresh.fine_tuning)
        return kept
    settings = fresh
    if present is not None and not overwrite:
        settings = _with_edits(fresh, present, file, name, another_sam=bool(wanted.differing_from(present)))
    save_configuration(
        file, dataset_name=paths.dataset_name, plans_name=paths.plans_name, configuration=name, settings=settings
    )
    print(f"SFR plan of {name}: {_mosaic(settings)}; {reason} {file}")
    _say_other_iterations(paths, settings.fine_tuning, fresh.fine_tuning)
    return settings


def _say_other_iterations(paths: SFRPaths, kept: FineTuningSettings, fresh: FineTuningSettings) -> None:
    """They are an edit, or were planned for another number of labelled cases: the user knows which."""
    if kept.iterations == fresh.iterations:
        return
    print(
        f"SFR plan of {paths.configuration}: fine_tuning.iterations stays {kept.iterations}, where {fresh.iterations} "
        f"would be planned now: edit it in {paths.sfr_plans_file}, or --overwrite_sfr_plan plans all settings again"
    )


def hint_for_cpu(settings: SFRConfiguration, wanted: RequestedSAM, in_channels: int) -> str | None:
    """What to tell somebody who has no GPU of an adaptation that they did not ask for; None where there is nothing.

    Args:
        settings: the SFR plan.
        wanted: what was asked for.
        in_channels: of the images.
    """
    model = find_model(settings.sam.model)
    for_gpu = settings.sam.adaptation == model.adaptation_on_gpu
    if wanted.adaptation is not None or not for_gpu or resolve_device(AUTO).type != "cpu":
        return None
    small = f"-pl {CPU_PLANNER} plans a small network"
    hours = why_hours(model.name, in_channels)
    if hours is not None:
        return f"No GPU here: {hours}; {small}"
    return (
        f"No GPU here: {settings.sam.adaptation} takes an hour or more on a CPU; "
        f"-adaptation {model.adaptation} takes minutes, and {small}"
    )


def _with_edits(
    fresh: SFRConfiguration, present: dict[str, Any], file: Path, name: str, *, another_sam: bool
) -> SFRConfiguration:
    """A new plan with the settings of the present one that do not depend on the grid, nor on SAM if it is another."""
    if another_sam:
        present = {**present, **{section: fresh.to_dict()[section] for section in _OF_SAM}}
    try:
        old = SFRConfiguration.from_dict(present)
    except ValueError as error:
        raise UserError(f"{file}: configuration {name}: {error}; correct it, or add --overwrite_sfr_plan") from None
    return replace(
        old,
        stitching=fresh.stitching,
        fine_tuning=_fine_tuning_with_edits(fresh, old),
        derived_from=fresh.derived_from,
    )


def _fine_tuning_with_edits(fresh: SFRConfiguration, old: SFRConfiguration) -> FineTuningSettings:
    """The present settings; but the new canvas may be too large for a batch that was planned for the present one."""
    model, adaptation = find_model(old.sam.model), find_adaptation(old.sam.adaptation)
    # which does not depend on the number of labelled cases
    planned = choose_fine_tuning(model, adaptation, old.stitching.canvas_size, num_labelled=1).batch_size
    if old.fine_tuning.batch_size != planned:
        return old.fine_tuning
    return replace(old.fine_tuning, batch_size=fresh.fine_tuning.batch_size)


def make_sfr_plan(
    plans_manager: PlansManager, configuration: str, fingerprint: dict[str, Any], wanted: RequestedSAM
) -> SFRConfiguration:
    """Derive the SFR plan of one configuration: :mod:`nnunet_sfr.planning.mosaic`, and the records of the tables.

    Args:
        plans_manager: nnU-Net's plan.
        configuration: nnU-Net's name of it.
        fingerprint: of all images.
        wanted: which SAM; what it leaves open takes the defaults.

    Raises:
        ValueError: model, adaptation and checkpoint do not go together.
    """
    manager = plans_manager.get_configuration(configuration)
    extent = data_extent(
        fingerprint["shapes_after_crop"],
        fingerprint["spacings"],
        transpose_forward=plans_manager.transpose_forward,
        target_spacing=manager.spacing,
    )
    window = choose_window(plans_manager.foreground_intensity_properties_per_channel, manager.normalization_schemes)
    sam = _sam_settings(wanted, for_gpu=is_made_for_gpu(plans_manager.plans))
    sam = replace(sam, window=MEDSAM_WINDOWS[window])
    model, adaptation = find_model(sam.model), find_adaptation(sam.adaptation)
    slice_axes = choose_slice_axes(manager.spacing, plans_manager.transpose_forward)
    stitching = choose_stitching(model, extent, manager.patch_size, slice_axes=slice_axes)
    return SFRConfiguration(
        stitching=stitching,
        sam=sam,
        fine_tuning=choose_fine_tuning(model, adaptation, stitching.canvas_size, fingerprint[OWN_KEY]["num_labelled"]),
        pseudo_labels=PLANNED_PSEUDO_LABELS,
        derived_from=derived_from(plans_manager.plans, manager.configuration),
    )


def _sam_settings(wanted: RequestedSAM, *, for_gpu: bool) -> SAMSettings:
    """The section ``sam``; what is not wanted takes the defaults of the tables."""
    model = find_model(wanted.model or DEFAULT_MODEL)
    adaptation = wanted.adaptation or model.planned_adaptation(for_gpu=for_gpu)
    return SAMSettings(model=model.name, checkpoint=wanted.checkpoint, adaptation=adaptation)


def _present_entry(file: Path, configuration: str) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    entry: dict[str, Any] | None = read_sfr_plan(file)["configurations"].get(configuration)
    return entry


def _reason_to_plan_again(
    present: dict[str, Any] | None,
    plans_manager: PlansManager,
    configuration: str,
    wanted: RequestedSAM,
    overwrite: bool,
) -> str | None:
    """Why the SFR plan is made again, as the words before the file name; None to keep it."""
    if present is None:
        return "written to"
    if overwrite:
        return "made again (--overwrite_sfr_plan) in"
    changed = wanted.differing_from(present)
    if changed:
        return f"made again for {changed} in"
    now = derived_from(plans_manager.plans, plans_manager.get_configuration(configuration).configuration)
    before = present.get("derived_from", {})
    key = first_difference(now, before)
    if key is None:
        return None
    return f"stitching made again because the nnU-Net plan changed ({key} {before[key]} is now {now.get(key)}) in"


def _mosaic(settings: SFRConfiguration) -> str:
    stitching = settings.stitching
    return (
        f"{settings.sam.model} ({settings.sam.adaptation}), patches of {times(stitching.patch_size)} on a canvas of "
        f"{stitching.canvas_size}"
    )
