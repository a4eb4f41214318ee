"""``sfr_run``: the whole way from images to a model, in one command that can be stopped and started again."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_sfr.atomic import require_writable
from nnunet_sfr.command_lines import AUTO, DEFAULT_PLANS
from nnunet_sfr.confidence_measures import MEASURES, PAPER
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.settings import CONFIDENCE_SOURCES, SAMSettings

from .command_line import (
    add_configuration,
    add_device,
    add_fold,
    add_with_nnunet,
    argument_parser,
    fraction,
    positive_number,
    run,
    spacing,
    typed,
)

if TYPE_CHECKING:
    from nnunet_sfr.pipeline.options import RunOptions

_SELECTION = ("confidence", "confidence_of", "threshold", "quantile")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the steps; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return run(
        lambda: _command(arguments, typed("sfr_run", argv)),
        interrupted="run the same command again to continue from here",
    )


def _command(arguments: argparse.Namespace, as_typed: str) -> None:
    from nnunet_sfr.pipeline.run_steps import run_steps
    from nnunet_sfr.pipeline.sequence import shell_commands
    from nnunet_sfr.pipeline.status import status_text

    options = _options(arguments)
    if arguments.print:
        print(shell_commands(options))
    elif arguments.status:
        print(status_text(options))
    else:
        _check_folders(options)
        _check_device(options)
        run_steps(options, as_typed)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_run",
        "From images to a model: plan and preprocess, fine-tune SAM, pseudo-label, train nnU-Net, and with --plus the "
        "rounds of SFR+; predict, if a folder is given. Each step is one of the public commands, shown before it runs; "
        "a step that is done is skipped, and one that was stopped is continued. State and logs are in "
        "nnUNet_results/<data set>/SFR_run__<plans>__<configuration>.",
        examples={
            "-d 42 -i new_images -o predictions": "from images to model to predictions, Mean Teacher",
            "-d 42 --method ACMT --plus --rounds 2": "SFR+: two rounds",
            "-d 42 -pl ExperimentPlannerCPU -overwrite_target_spacing 2.5 2.5 2.5 --epochs 5": "without a GPU",
            "-d 42 --status": "with a run's options: what is done, what comes next",
            "-d 42 --print": "the commands of the run",
        },
        plans="nnU-Net plans identifier; default: with -pl the planner's own, else the only plans of the data set, or "
        f"{DEFAULT_PLANS}",
    )
    add_configuration(parser)
    add_fold(parser)
    add_device(parser)
    _add_planning(parser)
    _add_training(parser)
    _add_rounds(parser)
    prediction = parser.add_argument_group("prediction")
    prediction.add_argument(
        "-i", dest="images", type=Path, metavar="FOLDER", help="images to predict in the end, with -o; default: none"
    )
    prediction.add_argument(
        "-o", dest="predictions", type=Path, metavar="FOLDER", help="where to write the predictions, with -i"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--status", action="store_true", help="show what is done and what comes next, and run nothing")
    instead.add_argument(
        "--print",
        action="store_true",
        help="print the shell commands of the whole run in order, and run nothing (docs/cluster.md)",
    )
    return parser


def _add_planning(parser: argparse.ArgumentParser) -> None:
    planning = parser.add_argument_group("planning (sfr_plan_and_preprocess -h says more)")
    planning.add_argument(
        "-pl",
        dest="planner",
        metavar="PLANNER",
        help="planner; default: the one of the plan that is there, or nnU-Net's",
    )
    planning.add_argument(
        "-sam", choices=tuple(MODELS), help=f"which SAM; default: what the SFR plan has, or {DEFAULT_MODEL}"
    )
    planning.add_argument(
        "-adaptation",
        choices=tuple(ADAPTATIONS),
        help="how SAM is fine-tuned; default: what the SFR plan has, or what suits model and planner",
    )
    planning.add_argument(
        "-checkpoint",
        metavar="FILE",
        help="weights of the SAM; default: what the SFR plan has, or the published ones",
    )
    planning.add_argument(
        "-overwrite_target_spacing",
        dest="target_spacing",
        type=spacing,
        nargs=3,
        metavar="MM",
        help="three numbers, for 3d_fullres, in the order in which nnU-Net reads the axes (NIfTI: z y x); default: a "
        "plan that fits its images stays as it is, and where one has to be made, the planner chooses",
    )
    planning.add_argument(
        "-np",
        dest="processes",
        type=positive_number,
        metavar="N",
        help="processes that read, preprocess and export images; default: those of each command",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    from nnunet_sfr.pipeline.options import METHODS
    from nnunet_sfr.trainers.methods import DEFAULT_METHOD

    training = parser.add_argument_group("training")
    training.add_argument(
        "--method", choices=METHODS, default=DEFAULT_METHOD, help="what is learnt from unlabelled patches"
    )
    training.add_argument(
        "--epochs",
        type=positive_number,
        metavar="N",
        help="epochs of every training, also of those of SFR+; default: what the SFR plan says",
    )
    training.add_argument(
        "--accept-empty-labels",
        action="store_true",
        help="train even where most pseudo-labels have no foreground, or a class is in none; without it the run stops "
        "there",
    )
    training.add_argument(
        "--crosscheck",
        action="store_true",
        help="before the training, measure SAM on labelled cases that it is left without (sfr_crosscheck; needs two "
        "labelled cases)",
    )
    add_with_nnunet(training)
    training.add_argument("-num_gpus", type=positive_number, default=1, metavar="N", help="GPUs for nnUNetv2_train")


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    rounds = parser.add_argument_group("SFR+ (sfr_select -h says more)")
    rounds.add_argument("--plus", action="store_true", help="let model and SAM train each other once more, in rounds")
    rounds.add_argument("--rounds", type=positive_number, metavar="R", help="with --plus: number of rounds; default: 1")
    rounds.add_argument(
        "--confidence",
        choices=(PAPER, *MEASURES),
        metavar="MEASURE",
        help="with --plus: what to tell the cases apart by; default: what the SFR plan says",
    )
    rounds.add_argument(
        "--confidence-of",
        choices=CONFIDENCE_SOURCES,
        help="with --plus: whose confidence counts; default: what the SFR plan says",
    )
    sides = rounds.add_mutually_exclusive_group()
    sides.add_argument(
        "--threshold",
        type=fraction,
        metavar="T",
        help="with --plus: cases with at least this confidence (0 to 1) train SAM",
    )
    sides.add_argument(
        "--quantile",
        type=fraction,
        metavar="SHARE",
        help="with --plus: this share of them does (0 to 1); default: what the SFR plan says",
    )


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what argparse itself lets pass."""
    for name in ("rounds", *_SELECTION):
        if getattr(arguments, name) is not None and not arguments.plus:
            parser.error(f"--{name.replace('_', '-')} goes with --plus only")
    if arguments.with_nnunet and not arguments.crosscheck:
        parser.error("--with-nnunet goes with --crosscheck only")
    if (arguments.images is None) != (arguments.predictions is None):
        parser.error("-i and -o go together")
    if arguments.images is not None and arguments.images.resolve() == arguments.predictions.resolve():
        parser.error("-o must be another folder than -i")
    if arguments.num_gpus > 1 and arguments.device in ("cpu", "mps"):
        parser.error(f"-num_gpus {arguments.num_gpus} does not go with -device {arguments.device}")
    if arguments.sam is not None:
        adaptation = arguments.adaptation or MODELS[arguments.sam].adaptation
        try:
            SAMSettings(model=arguments.sam, adaptation=adaptation, checkpoint=arguments.checkpoint)
        except ValueError as error:
            parser.error(f"-sam {arguments.sam}: {error}")


def _check_folders(options: RunOptions) -> None:
    if os.name == "nt":
        raise UserError("sfr_run needs Linux or macOS; --print shows the commands, which run here one by one")
    if options.images is not None:
        if not options.images.is_dir():
            raise UserError(f"-i {options.images}: no such folder")
        from nnunet_sfr.pipeline.project import Project

        Project(options).check_input_images()
    if options.predictions is not None:
        options.paths.refuse_raw_folder(options.predictions, "-o")
        require_writable(options.predictions)


def _check_device(options: RunOptions) -> None:
    """Refuse a device that this machine does not have, before hours of planning; torch is imported only for that."""
    if options.device not in (AUTO, "cpu") or options.num_gpus > 1:
        from nnunet_sfr.devices import require_gpus, resolve_device

        resolve_device(options.device)
        require_gpus(options.num_gpus)


def _options(arguments: argparse.Namespace) -> RunOptions:
    from nnunet_sfr.paths import DatasetPaths, resolve_dataset_name
    from nnunet_sfr.pipeline.options import RunOptions, plans_name

    name = resolve_dataset_name(arguments.dataset)
    plans = plans_name(arguments.planner, arguments.plans, DatasetPaths(name))
    planning = ("planner", "sam", "adaptation", "checkpoint")
    same = ("dataset", "fold", "method", "epochs", "images", "predictions", "device", *planning)
    options = RunOptions(
        **{option: getattr(arguments, option) for option in same},
        dataset_name=name,
        plans=plans,
        rounds=(arguments.rounds or 1) if arguments.plus else 0,
        target_spacing=None if arguments.target_spacing is None else tuple(arguments.target_spacing),
        num_gpus=arguments.num_gpus,
        processes=arguments.processes,
        accept_empty_labels=arguments.accept_empty_labels,
        crosscheck=arguments.crosscheck,
        with_nnunet=arguments.with_nnunet,
        selection=_selection(arguments),
    )
    return replace(options, configuration=_configuration(arguments.configuration, options))


def _configuration(given: str | None, options: RunOptions) -> str:
    """The one that was asked for or planned, or that nnU-Net will plan."""
    from nnunet_sfr.pipeline.project import Project
    from nnunet_sfr.plans import choose_configuration

    project = Project(options)
    if given is None and not project.paths.sfr_plans_file.is_file() and project.raw_is_here():
        return "2d" if project.has_one_slice() else options.configuration
    return choose_configuration(project.paths, options.plans, given)


def _selection(arguments: argparse.Namespace) -> tuple[str, ...]:
    given = {name: getattr(arguments, name) for name in _SELECTION if getattr(arguments, name) is not None}
    return tuple(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value)))
