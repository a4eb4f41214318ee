"""nnU-Net's planners by name: what they call their plans, and which of them made a plan. No nnU-Net here, which takes
ten seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.command_lines import DEFAULT_PLANS
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json

DEFAULT_PLANNER = "ExperimentPlanner"
"""nnU-Net's."""
CPU_PLANNER = "ExperimentPlannerCPU"
"""Ours, for machines without a GPU."""
PLANS_OF_PLANNERS = {
    DEFAULT_PLANNER: DEFAULT_PLANS,
    CPU_PLANNER: "nnUNetPlansCPU",
    "ExperimentPlanner96": "nnUNetPlans96",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
"""The planners' own names for their plans."""
_USED = "experiment_planner_used"
"""Under this key nnU-Net's plan has the name of the planner that made it."""


def planner_of(plans: str | None) -> str:
    """The planner whose own name for its plans this is; nnU-Net's default for any other name.

    Args:
        plans: nnU-Net's plans identifier; None where it is not known.
    """
    return {name: planner for planner, name in PLANS_OF_PLANNERS.items()}.get(plans or DEFAULT_PLANS, DEFAULT_PLANNER)


def planner_used(plans_file: Path) -> str | None:
    """The planner that made a plan on disk; None where there is no plan that can be read.

    Args:
        plans_file: nnU-Net's.
    """
    try:
        return str(read_json(plans_file, "", {_USED: str})[_USED])
    except UserError:
        return None


def planner_of_plans(plans_file: Path) -> str:
    """The planner that made a plan on disk, or would make it: the one whose own name for its plans the file has.

    Args:
        plans_file: nnU-Net's, which need not exist.
    """
    return planner_used(plans_file) or planner_of(plans_file.stem)


def planner_in(plans: Mapping[str, Any]) -> str | None:
    """The planner that made a plan; None where it does not say.

    Args:
        plans: nnU-Net's plan.
    """
    return plans.get(_USED)


def is_made_for_gpu(plans: Mapping[str, Any]) -> bool:
    """Whether a plan of nnU-Net is one for a GPU: of any planner but :data:`CPU_PLANNER`.

    Args:
        plans: nnU-Net's plan.
    """
    return planner_in(plans) != CPU_PLANNER
