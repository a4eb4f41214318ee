"""From a raw data set to preprocessed cases and both plans, step by step; every step keeps what is up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.command_lines import DEFAULT_CONFIGURATION, DEFAULT_PLANS
from nnunet_sfr.data.preprocessing import copy_ground_truth, preprocess
from nnunet_sfr.data.raw_cases import RawDataset, list_cases
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.folds import require_same_folds
from nnunet_sfr.label_journal import require_completed
from nnunet_sfr.locking import planning_locked
from nnunet_sfr.nnunet_json import check_configuration, read_plans
from nnunet_sfr.paths import DatasetPaths, SFRPaths, resolve_dataset_name
from nnunet_sfr.planner_names import planner_of_plans
from nnunet_sfr.planning.feasibility import require_configurations, require_trainable
from nnunet_sfr.planning.fingerprint import record_plan, update_fingerprint
from nnunet_sfr.planning.kept_plan import copy_what_planners_copy, plan_to_keep
from nnunet_sfr.planning.planners import (
    check_target_grid,
    check_target_spacing,
    default_plans_name,
    find_planner,
    nnunet_plan_summary,
    plan,
)
from nnunet_sfr.planning.requested_sam import RequestedSAM
from nnunet_sfr.planning.sfr_plan import check_sam, hint_for_cpu, update_sfr_plan
from nnunet_sfr.plans import choose_configuration


def plan_and_preprocess(
    dataset_name_or_id: str | int,
    *,
    typed: str = "sfr_plan_and_preprocess",
    configurations: Sequence[str] | None = None,
    planner: str | None = None,
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

    All input is checked before anything is written. nnU-Net's plan stays, edits and all, unless raw data have changed
    since, or another planner or target spacing is asked for, or a memory, or ``clean``.

    Args:
        dataset_name_or_id: nnU-Net's name or number.
        typed: the command as the user gave it, for others who find the data set locked.
        configurations: nnU-Net configurations to make an SFR plan for and to preprocess; None for 3d_fullres, or 2d
            where nnU-Net plans no other.
        planner: name of a planner class; None for the one that made the plans of this name, or whose own name it is.
        plans_name: nnU-Net's plans identifier; None for the planner's own, nnUNetPlans where none is asked for.
        gpu_memory_target: in GB, for the planner; None for its own, or what the plan that is there was made for.
        target_spacing: in mm, for 3d_fullres; None for what the plan that is there has, or the planner's choice.
        sam: a SAM model; None for the one in the SFR plan, or the default.
        adaptation: how to fine-tune it; None for what the SFR plan has, or what suits model and planner.
        checkpoint: file with its weights; None for what the SFR plan has, or the published ones.
        overwrite_sfr_plan: make the SFR plan again even if the present one fits.
        clean: make the fingerprint and nnU-Net's plan again even if no image changed.
        verify: run nnU-Net's verify_dataset_integrity too.
        skip_preprocessing: stop after planning.
        fingerprint_processes: processes that read and check images.
        processes: processes that preprocess.
        verbose: let nnU-Net print.

    Returns:
        nnU-Net's plans identifier.

    Raises:
        UserError: anything in the data or the call that the user can correct, a full disk too; or another
            sfr_plan_and_preprocess, or sfr_add_labels, is at work on the data set.
    """
    with file_errors_explained():
        name = resolve_dataset_name(dataset_name_or_id)
        if planner is None:
            plans_name = plans_name or DEFAULT_PLANS
            planner_class = _planner_of_plans(name, plans_name)
        else:
            planner_class = find_planner(planner)
        check_target_spacing(target_spacing)
        DatasetPaths(name).require_raw()
        require_completed(DatasetPaths(name).raw)
        with planning_locked(DatasetPaths(name), typed):
            wanted = RequestedSAM(sam, adaptation, checkpoint and str(Path(checkpoint).expanduser().resolve()))
            paths = SFRPaths(name, plans_name or default_plans_name(planner_class), "", data_identifier="")
            raw = _checked_raw_data(paths, configurations, wanted, overwrite=overwrite_sfr_plan)
            if verify:
                _verify(raw, fingerprint_processes)
            fingerprint = update_fingerprint(paths.fingerprint_file, raw, processes=fingerprint_processes, clean=clean)
            check_target_grid(target_spacing, fingerprint)
            kept = None
            if gpu_memory_target is None and not clean:
                kept = plan_to_keep(paths, planner_class, fingerprint, target_spacing)
            make = partial(
                plan,
                name,
                planner_class,
                plans_name=plans_name,
                gpu_memory_target=gpu_memory_target,
                target_spacing=target_spacing,
                verbose=verbose,
            )
            _keep_or_make_plan(paths, kept, make, partial(_require_usable, paths, configurations, raw, fingerprint))
            # open_dataset refuses configurations that the plan has not, or that SFR does not train
            chosen = configurations or _default_configurations(read_plans(paths.plans_file)["configurations"])
            datasets = [open_dataset(name, configuration, paths.plans_name) for configuration in chosen]
            _update_sfr_plans(datasets, fingerprint, wanted, overwrite=overwrite_sfr_plan)
            if not skip_preprocessing:
                _preprocess_all(raw, [dataset.paths for dataset in datasets], datasets[0].plans_manager, processes)
    return paths.plans_name


def _checked_raw_data(
    paths: SFRPaths, configurations: Sequence[str] | None, wanted: RequestedSAM, *, overwrite: bool
) -> RawDataset:
    """The raw data set, checked with what is asked for as far as that needs no image."""
    raw = list_cases(paths.raw)
    print(f"{paths.dataset_name}: {len(raw.labelled)} labelled and {len(raw.unlabelled)} unlabelled cases")
    require_same_folds(paths, with_added_cases=True)
    _check_configurations(paths, configurations, wanted, overwrite=overwrite)
    return raw


def _keep_or_make_plan(
    paths: SFRPaths, kept: dict[str, Any] | None, make: Callable[..., None], require_usable: Callable[..., None]
) -> None:
    """nnU-Net's plan: the one that is kept, or one that ``make`` writes once it is usable."""
    if kept is not None:
        require_usable(kept, kept=True)
        copy_what_planners_copy(paths)
        print(f"nnU-Net's plan: kept from {paths.plans_file}; --clean makes it again")
        return
    require_same_folds(paths, with_added_cases=False)
    make(check=partial(require_usable, kept=False))
    record_plan(paths.fingerprint_file, paths.plans_name)


def _require_usable(
    paths: SFRPaths,
    configurations: Sequence[str] | None,
    raw: RawDataset,
    fingerprint: Mapping[str, Any],
    plans: Mapping[str, Any],
    *,
    kept: bool,
) -> None:
    """Refuse a plan without the configurations that are asked for, or with one that cannot be trained."""
    chosen = configurations or _default_configurations(plans["configurations"])
    require_configurations(plans, chosen, paths.plans_file, kept=kept)
    require_trainable(plans, chosen, raw, fingerprint)


def _update_sfr_plans(
    datasets: Sequence[SFRDataset], fingerprint: dict[str, Any], wanted: RequestedSAM, *, overwrite: bool
) -> None:
    """The SFR plan of each configuration, and what to say of them."""
    hints = []
    for dataset in datasets:
        print(nnunet_plan_summary(dataset.plans_manager, dataset.paths.configuration))
        settings = update_sfr_plan(
            dataset.paths, dataset.plans_manager, fingerprint, wanted=wanted, overwrite=overwrite
        )
        hints.append(hint_for_cpu(settings, wanted, dataset.num_input_channels))
    for hint in filter(None, dict.fromkeys(hints)):
        print(hint)


def _planner_of_plans(dataset_name: str, plans_name: str) -> type[ExperimentPlanner]:
    """The planner that made the plans of this name, which are to be kept, or whose own name it is."""
    plans_file = SFRPaths(dataset_name, plans_name, "", data_identifier="").plans_file
    planner = planner_of_plans(plans_file)
    try:
        return find_planner(planner)
    except UserError:
        raise UserError(
            f"{plans_file}: made by {planner}, which is not installed here; choose a planner with -pl"
        ) from None


def _check_configurations(
    paths: SFRPaths, configurations: Sequence[str] | None, wanted: RequestedSAM, *, overwrite: bool
) -> None:
    """Refuse configurations that do not exist, and a SAM that cannot be planned for those that are asked for."""
    for configuration in configurations or ():
        check_configuration(configuration, paths.plans_file)
    for configuration in configurations or (choose_configuration(paths, paths.plans_name, None),):
        check_sam(paths.sfr_plans_file, configuration, wanted, overwrite=overwrite)


def _default_configurations(planned: Mapping[str, Any]) -> list[str]:
    return [DEFAULT_CONFIGURATION if DEFAULT_CONFIGURATION in planned else next(iter(planned))]


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
