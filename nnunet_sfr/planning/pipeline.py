"""From a raw data set to preprocessed cases and both plans, step by step; every step keeps what is up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.command_lines import DEFAULT_CONFIGURATION
from nnunet_sfr.ct_windows import choose_window
from nnunet_sfr.data.preprocessing import copy_ground_truth, preprocess
from nnunet_sfr.data.raw_cases import RawDataset, list_cases
from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.label_journal import require_completed
from nnunet_sfr.nnunet_json import check_configuration, read_plans
from nnunet_sfr.paths import DatasetPaths, SFRPaths, resolve_dataset_name
from nnunet_sfr.planning.feasibility import require_trainable
from nnunet_sfr.planning.fingerprint import OWN_KEY, update_fingerprint
from nnunet_sfr.planning.labels import PLANNED_PSEUDO_LABELS
from nnunet_sfr.planning.mosaic import choose_slice_axes, choose_stitching, data_extent
from nnunet_sfr.planning.planners import (
    check_target_grid,
    check_target_spacing,
    default_plans_name,
    find_planner,
    plan,
)
from nnunet_sfr.planning.requested_sam import NO_REQUEST, RequestedSAM
from nnunet_sfr.planning.schedule import choose_fine_tuning
from nnunet_sfr.plans import (
    SFRConfiguration,
    choose_configuration,
    derived_from,
    load_configuration,
    read_sfr_plan,
    save_configuration,
)
from nnunet_sfr.sam_models import DEFAULT_MODEL, find_model
from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.sam_stage.weights import require_weights
from nnunet_sfr.settings import SAMSettings
from nnunet_sfr.wording import times


def plan_and_preprocess(
    dataset_name_or_id: str | int,
    *,
    configurations: Sequence[str] | None = None,
    planner: str = "ExperimentPlanner",
    plans_name: str | None = None,
    gpu_memory_target: float | None = None,
    target_spacing: Sequence[float] | None = None,
    sam: str | None = None,
    adaptation: str | None = None,
    checkpoint: str | None = None,
    overwrite_sfr_plan: bool = False,
    clean: bool = False,
    verify: bool = False,
    skip_preprocessing: bool = False,
    fingerprint_processes: int = 8,
    processes: int = 4,
    verbose: bool = False,
) -> str:
    """Plan a data set for nnU-Net and SFR from all its images, and preprocess labelled and unlabelled cases alike.

    All input is checked before anything is written.

    Args:
        dataset_name_or_id: nnU-Net's name or number.
        configurations: nnU-Net configurations to make an SFR plan for and to preprocess; None for 3d_fullres, or 2d
            where nnU-Net plans no other.
        planner: name of a planner class.
        plans_name: nnU-Net's plans identifier; None for the planner's own.
        gpu_memory_target: in GB, for the planner; None for its own.
        target_spacing: in mm, for 3d_fullres; None for the planner's choice.
        sam: a SAM model; None for the one in the SFR plan, or the default.
        adaptation: how to fine-tune it; None for what the SFR plan has, or what the model's record says.
        checkpoint: file with its weights; None for what the SFR plan has, or the published ones.
        overwrite_sfr_plan: make the SFR plan again even if the present one fits.
        clean: make the fingerprint again even if no image changed.
        verify: run nnU-Net's verify_dataset_integrity too.
        skip_preprocessing: stop after planning.
        fingerprint_processes: processes that read and check images.
        processes: processes that preprocess.
        verbose: let nnU-Net print.

    Returns:
        nnU-Net's plans identifier.

    Raises:
        UserError: anything in the data or the call that the user can correct, a full disk too.
    """
    with file_errors_explained():
        name = resolve_dataset_name(dataset_name_or_id)
        planner_class = find_planner(planner)
        check_target_spacing(target_spacing)
        DatasetPaths(name).require_raw()
        require_completed(DatasetPaths(name).raw)
        raw = list_cases(DatasetPaths(name).raw)
        print(f"{name}: {len(raw.labelled)} labelled and {len(raw.unlabelled)} unlabelled cases")
        wanted = RequestedSAM(sam, adaptation, checkpoint and str(Path(checkpoint).expanduser().resolve()))
        paths = SFRPaths(name, plans_name or default_plans_name(planner_class), "", data_identifier="")
        for configuration in configurations or ():
            check_configuration(configuration, paths.plans_file)
        for configuration in configurations or (choose_configuration(paths, paths.plans_name, None),):
            check_sam(paths.sfr_plans_file, configuration, wanted, overwrite=overwrite_sfr_plan)
        if verify:
            _verify(raw, fingerprint_processes)
        fingerprint = update_fingerprint(
            DatasetPaths(name).fingerprint_file,
            raw,
            processes=fingerprint_processes,
            clean=clean,
        )
        check_target_grid(target_spacing, fingerprint)
        plans_identifier = plan(
            name,
            planner_class,
            plans_name=plans_name,
            gpu_memory_target=gpu_memory_target,
            target_spacing=target_spacing,
            check=lambda plans: require_trainable(
                plans, configurations or _default_configurations(plans["configurations"]), raw, fingerprint
            ),
            verbose=verbose,
        )
        # open_dataset refuses configurations that the plan has not, or that SFR does not train
        chosen = configurations or _default_configurations(read_plans(paths.plans_file)["configurations"])
        datasets = [open_dataset(name, configuration, plans_identifier) for configuration in chosen]
        for dataset in datasets:
            print(nnunet_plan_summary(dataset.plans_manager, dataset.paths.configuration))
            update_sfr_plan(
                dataset.paths,
                dataset.plans_manager,
                fingerprint,
                wanted=wanted,
                overwrite=overwrite_sfr_plan,
            )
        if not skip_preprocessing:
            _preprocess_all(raw, [dataset.paths for dataset in datasets], datasets[0].plans_manager, processes)
    return plans_identifier


def _default_configurations(planned: Mapping[str, Any]) -> list[str]:
    return [DEFAULT_CONFIGURATION if DEFAULT_CONFIGURATION in planned else next(iter(planned))]


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
        settings = _sam_settings(settled)
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
        return kept
    if present is not None and not overwrite and not wanted.differing_from(present):
        fresh = _with_edits(fresh, present, file, name)
    save_configuration(
        file, dataset_name=paths.dataset_name, plans_name=paths.plans_name, configuration=name, settings=fresh
    )
    print(f"SFR plan of {name}: {_mosaic(fresh)}; {reason} {file}")
    return fresh


def _with_edits(fresh: SFRConfiguration, present: dict[str, Any], file: Path, name: str) -> SFRConfiguration:
    """A new plan with the settings of the present one that do not depend on the grid."""
    try:
        old = SFRConfiguration.from_dict(present)
    except ValueError as error:
        raise UserError(f"{file}: configuration {name}: {error}; correct it, or add --overwrite_sfr_plan") from None
    return replace(
        fresh,
        sam=old.sam,
        fine_tuning=old.fine_tuning,
        pseudo_labels=old.pseudo_labels,
        retraining=old.retraining,
        rounds=old.rounds,
    )


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
    sam = replace(_sam_settings(wanted), window=window)
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


def _sam_settings(wanted: RequestedSAM) -> SAMSettings:
    """The section ``sam``; what is not wanted takes the defaults of the tables."""
    model = find_model(wanted.model or DEFAULT_MODEL)
    return SAMSettings(model=model.name, checkpoint=wanted.checkpoint, adaptation=wanted.adaptation or model.adaptation)


def nnunet_plan_summary(plans_manager: PlansManager, configuration: str) -> str:
    """What nnU-Net planned, in one line.

    Args:
        plans_manager: nnU-Net's plan.
        configuration: of that plan, such as ``3d_fullres``.
    """
    manager = plans_manager.get_configuration(configuration)
    features = "-".join(map(str, manager.network_arch_init_kwargs["features_per_stage"]))
    spacing = times(manager.spacing)
    network = manager.network_arch_class_name.rsplit(".", 1)[-1]
    return (
        f"{plans_manager.plans_name} {configuration}: {network} {features}, patch {times(manager.patch_size)}, "
        f"batch size {manager.batch_size}, spacing {spacing} mm"
    )


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
    for key, value in (present.get("derived_from") or {}).items():
        if now.get(key) != value:
            return f"stitching made again because the nnU-Net plan changed ({key} {value} is now {now.get(key)}) in"
    return None


def _verify(raw: RawDataset, processes: int) -> None:
    try:
        verify_dataset_integrity(str(raw.folder), processes)
    except (AssertionError, OSError, RuntimeError) as error:
        raise UserError(f"{raw.folder}: nnU-Net's verify_dataset_integrity found: {error}") from None


def _preprocess_all(
    raw: RawDataset, all_paths: Sequence[SFRPaths], plans_manager: PlansManager, processes: int
) -> None:
    """Configurations can share a folder: each folder is done once."""
    for paths in {paths.data_identifier: paths for paths in all_paths}.values():
        result = preprocess(raw, paths, plans_manager, processes=processes)
        removed = f", {result.removed} that are no longer in the raw data removed" if result.removed else ""
        print(f"Preprocessed {paths.configuration}: {result.made} cases made, {result.kept} kept{removed}")
    copy_ground_truth(raw, all_paths[0].preprocessed)


def _mosaic(settings: SFRConfiguration) -> str:
    stitching = settings.stitching
    return (
        f"{settings.sam.model} ({settings.sam.adaptation}), patches of {times(stitching.patch_size)} on a canvas of "
        f"{stitching.canvas_size}"
    )
