"""nnU-Net's planners by name, and our own: for machines without a GPU, and for patches of one size."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nnunetv2
import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.cores import AUGMENTATION
from nnunet_sfr.errors import UserError
from nnunet_sfr.silence import without_printing
from nnunet_sfr.wording import times

PATCH_96 = (96, 96, 96)


class ExperimentPlannerCPU(ExperimentPlanner):
    """A network that a laptop's CPU trains: nnU-Net's rules with a small budget.

    16 to 128 features instead of 32 to 320 (or 512), and a budget of feature-map voxels in which a training step takes
    about 0.5 s on 2 cores, augmentation included. Measured: 24 x 40 x 48 in batches of 2 with features 16-32-64-128
    needs 0.32 s for forward and backward pass, 2D 128 x 128 in batches of 8 needs 0.34 s. Everything else, the data
    too, is nnU-Net's, so plans and checkpoints work everywhere.

    ``gpu_memory_target_in_gb`` scales the budget, as in nnU-Net: 16 doubles it.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetPlansCPU",
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.UNet_base_num_features = 16
        self.UNet_max_features_2d = 128
        self.UNet_max_features_3d = 128
        # what DynamicNetworkArchitectures' compute_conv_feature_map_size counts for the two networks measured above
        self.UNet_reference_val_3d = 5_000_000
        self.UNet_reference_val_corresp_bs_3d = 2
        self.UNet_reference_val_2d = 2_550_000
        self.UNet_reference_val_corresp_bs_2d = 8


class ExperimentPlanner96(ExperimentPlanner):
    """nnU-Net's plan with 3D patches of 96 x 96 x 96 in batches of two: the uniform variant of the paper (Table VI).

    Poolings and kernels follow nnU-Net's rule for that patch. Volumes with fewer slices are padded, where the paper
    interpolates them.
    """

    def __init__(self, *arguments: Any, plans_name: str = "nnUNetPlans96", **options: Any) -> None:
        super().__init__(*arguments, plans_name=plans_name, **options)

    def get_plans_for_configuration(self, spacing: Sequence[float], *arguments: Any, **options: Any) -> dict[str, Any]:
        """nnU-Net's plan of one configuration, with another patch and the network for it where it is 3D."""
        plan: dict[str, Any] = super().get_plans_for_configuration(spacing, *arguments, **options)
        if len(spacing) != 3:
            return plan
        _, strides, kernels, patch, _ = get_pool_and_conv_props(
            spacing, PATCH_96, self.UNet_featuremap_min_edge_length, max_numpool=999999
        )
        stages = len(strides)
        features = [min(self.UNet_max_features_3d, self.UNet_base_num_features * 2**stage) for stage in range(stages)]
        plan["architecture"]["arch_kwargs"] |= {
            "n_stages": stages,
            "features_per_stage": features,
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": self.UNet_blocks_per_stage_encoder[:stages],
            "n_conv_per_stage_decoder": self.UNet_blocks_per_stage_decoder[: stages - 1],
        }
        return {**plan, "patch_size": [int(length) for length in patch], "batch_size": 2}


OWN_PLANNERS = {planner.__name__: planner for planner in (ExperimentPlannerCPU, ExperimentPlanner96)}


def find_planner(name: str) -> type[ExperimentPlanner]:
    """The planner class that ``-pl`` names: ours, or any in ``nnunetv2.experiment_planning``.

    Raises:
        UserError: there is no planner of this name.
    """
    if name in OWN_PLANNERS:
        return OWN_PLANNERS[name]
    folder = Path(nnunetv2.__path__[0]) / "experiment_planning"
    planner = recursive_find_python_class(str(folder), name, current_module="nnunetv2.experiment_planning")
    if not (isinstance(planner, type) and issubclass(planner, ExperimentPlanner)):
        raise UserError(
            f"-pl {name}: no such planner; use ExperimentPlanner, nnUNetPlannerResEncM (or L, XL), "
            f"{', '.join(OWN_PLANNERS)}, or another class in nnunetv2.experiment_planning"
        )
    return planner


def default_plans_name(planner_class: type[ExperimentPlanner]) -> str:
    """The plans identifier that a planner takes unless it is told another: the default of its constructor."""
    for ancestor in planner_class.__mro__:
        parameter = inspect.signature(ancestor).parameters.get("plans_name")
        if parameter is not None:
            return str(parameter.default)
    raise AssertionError("nnU-Net's own planner has plans_name")


MOST_VOXELS = 10**10
"""Of a case on the target grid: 40 GB of one channel."""


def check_target_spacing(target_spacing: Sequence[float] | None) -> None:
    """Refuse an ``-overwrite_target_spacing`` that is not three positive numbers.

    Raises:
        UserError: it is not.
    """
    if target_spacing is None:
        return
    if len(target_spacing) != 3 or not all(0 < value < math.inf for value in target_spacing):
        raise UserError(f"-overwrite_target_spacing {_millimetres(target_spacing)}: give three positive numbers in mm")


def check_target_grid(target_spacing: Sequence[float] | None, fingerprint: Mapping[str, Any]) -> None:
    """Refuse a target spacing at which the images have no voxels, or more than memory will hold.

    Args:
        target_spacing: in mm, axes as the reader returns them; None for the planner's choice.
        fingerprint: of all images: shapes in voxels, spacings in mm.

    Raises:
        UserError: with the extent of the median case.
    """
    if target_spacing is None:
        return
    extents = np.array(fingerprint["shapes_after_crop"]) * np.array(fingerprint["spacings"])
    extent = np.median(extents, axis=0)
    voxels = extent / np.array(target_spacing)
    where = f"-overwrite_target_spacing {_millimetres(target_spacing)}: the median image is {_millimetres(extent)} mm"
    if voxels.min() < 1:
        raise UserError(f"{where}, less than one voxel of this spacing; give a finer one")
    if voxels.prod() > MOST_VOXELS:
        raise UserError(f"{where}, {voxels.prod():.0e} voxels of this spacing; give a coarser one")


def _millimetres(lengths: Iterable[float]) -> str:
    return " ".join(f"{length:g}" for length in lengths)


def plan(
    dataset_name: str,
    planner_class: type[ExperimentPlanner],
    *,
    plans_name: str | None = None,
    gpu_memory_target: float | None = None,
    target_spacing: Sequence[float] | None = None,
    check: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool = False,
) -> None:
    """Run a planner, as ``nnUNetv2_plan_experiment`` does; it writes the plan.

    Args:
        dataset_name: nnU-Net's full name; its fingerprint exists.
        planner_class: from :func:`find_planner`.
        plans_name: None for the planner's own.
        gpu_memory_target: in GB; None for the planner's own.
        target_spacing: three numbers in mm for 3d_fullres, axes as the reader returns them; None for the planner's
            choice.
        check: is given the plan before it is written, and raises where it shall not be.
        verbose: let the planner print.
    """
    options: dict[str, Any] = {}
    if plans_name is not None:
        options["plans_name"] = plans_name
    if gpu_memory_target is not None:
        options["gpu_memory_target_in_gb"] = gpu_memory_target
    if target_spacing is not None:
        options["overwrite_target_spacing"] = [float(value) for value in target_spacing]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_zero_workers())
        if not verbose:
            # for readers that it tries in vain it prints tracebacks
            stack.enter_context(without_printing(errors=True))
        planner = planner_class(dataset_name, **options)
        planner.save_plans = functools.partial(_save_sound_plans, planner.save_plans, gpu_memory_target, check)
        try:
            planner.plan_experiment()
        except (ArithmeticError, AssertionError, IndexError, ValueError) as error:
            target = "" if gpu_memory_target is None else f"-gpu_memory_target {gpu_memory_target:g}: "
            raise UserError(
                f"{target}{dataset_name}: nnU-Net's planner fails on these images ({type(error).__name__}: {error}); "
                "check their shapes and spacings, and the options of the planner"
            ) from error


def _save_sound_plans(
    save_plans: Callable[[dict[str, Any]], None],
    gpu_memory_target: float | None,
    check: Callable[[dict[str, Any]], None] | None,
    plans: dict[str, Any],
) -> None:
    """Let nnU-Net write a plan over the one that is there, unless it has patches without voxels or does not pass."""
    for name, configuration in plans["configurations"].items():
        patch = configuration.get("patch_size", [1])
        if min(patch) < 1:
            target = "" if gpu_memory_target is None else f"-gpu_memory_target {gpu_memory_target:g}: "
            raise UserError(f"{target}no patch of {name} fits into this memory; give more, or leave the option out")
    if check is not None:
        check(plans)
    save_plans(plans)


@contextlib.contextmanager
def _without_zero_workers() -> Iterator[None]:
    """nnU-Net's planner sets torch's threads to ``nnUNet_n_proc_DA``, where its valid 0 (no workers) crashes."""
    value = os.environ.get(AUGMENTATION)
    if value == "0":
        os.environ[AUGMENTATION] = "1"
    try:
        yield
    finally:
        if value is not None:
            os.environ[AUGMENTATION] = value


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
