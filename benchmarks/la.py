"""The left-atrium benchmark: ``python benchmarks/la.py SOURCE``.

Builds the data set, plans, lets SAM label where a trainer wants it, trains every trainer with every seed for the same
number of iterations, predicts the test cases and writes a table. Stop it at any time: the same command goes on. Started
several times at once, it shares the runs out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.left_atrium.study import KNOWN_TRAINERS, STOCK, Study, Workspace, open_workspace
from nnunet_sfr.entry_points.command_line import positive_number
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS

DEFAULT_TRAINERS = (STOCK, "nnUNetTrainer_MT", "nnUNetTrainerSFR_MT", "nnUNetTrainerSFRPlus_MT")
PLANNERS = {"cpu": "ExperimentPlannerCPU", "cuda": "ExperimentPlanner"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the table; the exit code is 1 for a mistake or a step that failed."""
    options = _parser().parse_args(arguments)
    try:
        study = _study(options)
        workspace = open_workspace(options.output.expanduser().resolve(), study)
        if not options.table_only:
            _run(study, workspace, options)
        _write_table(study, workspace, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _run(study: Study, workspace: Workspace, options: argparse.Namespace) -> None:
    # importing torch takes seconds, which -h should not
    from benchmarks.left_atrium.steps import Steps, needs_sam

    steps = Steps(study, workspace, options.threads)
    steps.prepare(with_sam=any(needs_sam(trainer) for trainer in options.trainers))
    for seed in options.seeds:
        for trainer in options.trainers:
            steps.run(trainer, seed)


def _write_table(study: Study, workspace: Workspace, options: argparse.Namespace) -> None:
    from benchmarks.left_atrium.table import write_results

    print(write_results(study, workspace, update_readme=options.update_readme))


def _study(options: argparse.Namespace) -> Study:
    return Study(
        source=str(options.source.expanduser().resolve()),
        labelled=options.labelled,
        spacing=options.spacing,
        iterations=options.iterations,
        iterations_per_epoch=options.iterations_per_epoch,
        validation_iterations_per_epoch=options.validation_iterations_per_epoch,
        sam=options.sam,
        adaptation=options.adaptation,
        sam_iterations=options.sam_iterations,
        rounds=options.rounds,
        planner=options.planner or PLANNERS[options.device],
        device=options.device,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/la.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="what sfr_convert LA reads: ../shared/data/la, or the .h5 files")
    parser.add_argument("--output", type=Path, default=Path("la_output"), help="folder for everything (la_output)")
    data = parser.add_argument_group("data")
    data.add_argument("--labelled", type=positive_number, default=4, metavar="N", help="labelled cases: 1, 4, 16 (4)")
    data.add_argument(
        "--spacing",
        type=_spacing,
        default=2.5,
        metavar="MM",
        help="target spacing, or planned for nnU-Net's choice (2.5)",
    )
    runs = parser.add_argument_group("what is trained")
    runs.add_argument(
        "--trainers",
        nargs="+",
        choices=KNOWN_TRAINERS,
        default=DEFAULT_TRAINERS,
        metavar="TRAINER",
        help=f"nnUNetTrainer or any of ours ({', '.join(DEFAULT_TRAINERS)})",
    )
    runs.add_argument(
        "--seeds", nargs="+", type=positive_number, default=(1, 2, 3), metavar="N", help="one run each (1 2 3)"
    )
    runs.add_argument("--iterations", type=positive_number, default=400, metavar="N", help="of every training (400)")
    runs.add_argument("--iterations-per-epoch", type=positive_number, default=50, metavar="N", help="a divisor (50)")
    runs.add_argument("--validation-iterations-per-epoch", type=positive_number, default=5, metavar="N", help="(5)")
    runs.add_argument("--rounds", type=positive_number, default=1, metavar="N", help="of SFR+, after round 0 (1)")
    runs.add_argument("--sam", choices=tuple(MODELS), default=DEFAULT_MODEL, help=f"({DEFAULT_MODEL})")
    runs.add_argument("--adaptation", choices=tuple(ADAPTATIONS), help="how SAM is fine-tuned (as planned)")
    runs.add_argument("--sam-iterations", type=positive_number, metavar="N", help="of its fine-tuning (as planned)")
    runs.add_argument("--planner", help="nnU-Net planner (ExperimentPlannerCPU on the CPU, else ExperimentPlanner)")
    runs.add_argument("--device", choices=tuple(PLANNERS), default="cpu", help="where to train (cpu)")
    runs.add_argument("--threads", type=positive_number, default=2, metavar="N", help="of torch in each process (2)")
    parser.add_argument("--table-only", action="store_true", help="run nothing, write the table of what is there")
    parser.add_argument("--update-readme", action="store_true", help="write the table into benchmarks/README.md")
    return parser


def _spacing(text: str) -> float | None:
    if text == "planned":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be millimetres above 0, or planned, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
