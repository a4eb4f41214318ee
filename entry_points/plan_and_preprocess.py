"""``sfr_plan_and_preprocess``: plan from all images, preprocess labelled and unlabelled cases."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nnunet_sfr.cores import available_cores, choose_processes
from nnunet_sfr.paths import resolve_dataset_name
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS

from .command_line import argument_parser, plain_name, positive_length, positive_number, run, spacing, summaries, typed


def parser() -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = argument_parser(
        "sfr_plan_and_preprocess",
        "Check the raw data, let nnU-Net plan from labelled and unlabelled images together, derive the SFR plan, and "
        "preprocess all cases with nnU-Net's preprocessor. Unlabelled images lie in imagesUl of the raw data set, "
        "named like those in imagesTr. Run again, it does only what is missing or changed: both plans stay with their "
        "edits, nnU-Net's until raw data change or another planner or target spacing, a memory, or --clean is asked "
        "for.",
        examples={
            "-d 42": "nnU-Net's default plan and LiteMedSAM",
            "-d 42 -pl ExperimentPlannerCPU -overwrite_target_spacing 2.5 2.5 2.5": "without a GPU, on a coarser grid",
            "-d 42 -adaptation few_shot": "SAM's encoder stays as it is, which is faster",
            "-d 42 -c 2d 3d_fullres": "two configurations",
        },
        plans="name of the plans to write; default: the planner's own, nnUNetPlans or nnUNetPlansCPU for example",
    )
    add = command.add_argument
    cores = available_cores()
    add(
        "-overwrite_plans_name",
        dest="same_plans",
        type=plain_name,
        metavar="PLANS",
        help="nnU-Net's name of -p; default: as -p",
    )
    add(
        "-c",
        dest="configurations",
        nargs="+",
        metavar="CONFIGURATION",
        help="nnU-Net configurations to prepare; default: 3d_fullres, or 2d where images have one slice",
    )
    add(
        "-pl",
        dest="planner",
        help="planner: a class of nnU-Net (nnUNetPlannerResEncM, ...), or ExperimentPlannerCPU, ours for machines "
        "without a GPU (plans name nnUNetPlansCPU); default: the one that made the plans of -p, or whose own name that "
        "is; without -p, that of nnUNetPlans, which ExperimentPlanner makes",
    )
    add(
        "-gpu_memory_target",
        type=positive_length,
        metavar="GB",
        help="GPU memory to plan for; makes nnU-Net's plan again; default: the planner's own",
    )
    add(
        "-overwrite_target_spacing",
        dest="target_spacing",
        type=spacing,
        nargs=3,
        metavar="MM",
        help="three numbers, for 3d_fullres, in the order in which nnU-Net reads the axes (NIfTI: z y x); default: "
        "what the plan has while it is kept, the planner's choice in a new one",
    )
    add(
        "-sam",
        choices=tuple(MODELS),
        help=f"default: what the SFR plan has, {DEFAULT_MODEL} in a new one. {summaries(MODELS)}",
    )
    add(
        "-adaptation",
        choices=tuple(ADAPTATIONS),
        help="how SAM is fine-tuned; default: what the SFR plan has, or in a new one what suits model and planner. "
        f"{summaries(ADAPTATIONS)}",
    )
    add(
        "-checkpoint",
        metavar="FILE",
        help="weights of the SAM, written into the SFR plan; default: what the SFR plan has, or the published ones",
    )
    add(
        "--overwrite_sfr_plan",
        action="store_true",
        help="make the whole SFR plan again; without it, one that still fits nnU-Net's plan is kept with its edits, "
        "and another grid or SAM renews only what depends on it",
    )
    add(
        "--clean",
        action="store_true",
        help="make the fingerprint and nnU-Net's plan again even if no image changed",
    )
    add(
        "--verify_dataset_integrity",
        dest="verify",
        action="store_true",
        help="run nnU-Net's own check too; images and labels are checked in any case",
    )
    add("--no_pp", dest="skip_preprocessing", action="store_true", help="plan, but do not preprocess")
    add(
        "-npfp",
        dest="fingerprint_processes",
        type=positive_number,
        default=min(8, cores),
        metavar="N",
        help="processes that read and check images; each needs memory for a case at full size",
    )
    add(
        "-np",
        dest="processes",
        type=positive_number,
        default=min(4, cores),
        metavar="N",
        help="processes that preprocess; each needs memory for a case at full size",
    )
    add("--verbose", action="store_true", help="show what nnU-Net prints")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, plan and preprocess; returns the exit code."""
    command_parser = parser()
    options = vars(command_parser.parse_args(argv))
    same_plans = options.pop("same_plans")
    if None not in (same_plans, options["plans"]) and same_plans != options["plans"]:
        command_parser.error("-p and -overwrite_plans_name are one option; give one of them")
    options["plans"] = options["plans"] or same_plans

    def command() -> None:
        choice = choose_processes(os.environ)
        if choice:
            print(choice)
        resolve_dataset_name(options["dataset"])

        # importing torch takes seconds, which neither -h nor a wrong number should; nnU-Net reads its variables when it
        # is imported
        from nnunet_sfr.planning.pipeline import plan_and_preprocess

        plan_and_preprocess(
            options.pop("dataset"),
            typed=typed("sfr_plan_and_preprocess", argv),
            plans_name=options.pop("plans"),
            **options,
        )

    exit_code: int = run(command)
    return exit_code
