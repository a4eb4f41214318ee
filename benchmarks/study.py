"""A study of any data set that sfr_convert knows: ``python benchmarks/study.py DATASET SOURCE``.

Builds the data set, plans, lets SAM label where a trainer wants it, trains every trainer with every seed for the same
number of iterations, predicts the test cases and writes a table. Stop it at any time: the same command continues.
Started several times at once, it shares the runs out. ``--paper DATASET`` prints the tables of the paper with our
numbers beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import positive_number, whole_number
from benchmarks.studies.paper import paper_datasets, paper_table
from benchmarks.studies.study import ALL_LABELS, KNOWN_TRAINERS, STOCK, Study, StudyFolders, open_workspace
from nnunet_sfr.conversion import PUBLIC_DATASETS
from nnunet_sfr.entry_points.command_line import run
from nnunet_sfr.entry_points.dataset_options import add_dataset_options, given_dataset_options
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS

DEFAULT_TRAINERS = (STOCK, "nnUNetTrainer_MT", "nnUNetTrainerSFR_MT", "nnUNetTrainerSFRPlus_MT", ALL_LABELS)
PLANNERS = {"cpu": "ExperimentPlannerCPU", "cuda": "ExperimentPlanner"}
PLANNED = "planned"
COARSE = {"LA": 2.5}
"""Target spacing in mm where none is asked for; of other data sets, the planner's."""
PROTOCOLS: dict[str, dict[str, Any]] = {
    "quick": {},
    "paper": {
        "spacing": PLANNED,
        "iterations": 6000,
        "iterations_per_epoch": 250,
        "validation_iterations_per_epoch": 50,
        "sam": "vit_b",
        "adaptation": "lora",
        "device": "cuda",
    },
}
"""Other defaults; whatever is given on the command line holds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the table; the exit code is 1 for a mistake, or that of the step that failed."""
    options = _parse(arguments)

    def command() -> None:
        if options.paper is not None:
            _print_paper(options)
            return
        study = _study(options)
        workspace = open_workspace(_output(options, study.dataset), study)
        if not options.table_only:
            _run(study, workspace, options)
        _write_table(study, workspace, options)

    exit_code: int = run(command, interrupted="run the same command again to continue")
    return exit_code


def _run(study: Study, workspace: StudyFolders, options: argparse.Namespace) -> None:
    # importing torch takes seconds, which -h should not
    from benchmarks.studies.steps import Steps, needs_sam

    steps = Steps(study, workspace, options.threads)
    steps.prepare(
        with_sam=any(needs_sam(trainer) for trainer in options.trainers),
        with_all_labels=ALL_LABELS in options.trainers,
    )
    for seed in options.seeds:
        for trainer in options.trainers:
            steps.run(trainer, seed)


def _write_table(study: Study, workspace: StudyFolders, options: argparse.Namespace) -> None:
    from benchmarks.studies.table import write_results

    print(write_results(study, workspace, update_readme=options.update_readme))


def _print_paper(options: argparse.Namespace) -> None:
    print(paper_table(options.paper, _output(options, options.paper)))


def _output(options: argparse.Namespace, dataset: str) -> Path:
    folder: Path = options.output or Path(f"{dataset.lower()}_output")
    return folder.expanduser().resolve()


def _study(options: argparse.Namespace) -> Study:
    source = options.source.expanduser()
    spacing: float | str = options.spacing or COARSE.get(options.dataset, PLANNED)
    try:
        chosen = given_dataset_options(options, options.dataset)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Study(
        dataset=options.dataset,
        # nnunet takes a name too
        source=str(source.resolve()) if source.exists() else str(source),
        labelled=options.labelled,
        cases_seed=options.cases_seed,
        allow_missing=options.allow_missing,
        options=chosen,
        spacing=None if spacing == PLANNED else float(spacing),
        iterations=options.iterations,
        iterations_per_epoch=options.iterations_per_epoch,
        validation_iterations_per_epoch=options.validation_iterations_per_epoch,
        sam=options.sam,
        adaptation=options.adaptation,
        sam_iterations=options.sam_iterations,
        rounds=options.rounds,
        planner=options.planner or PLANNERS[options.device],
        device=options.device,
        sam_per_seed=options.sam_per_seed,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.paper is None and options.source is None:
        parser.error("give DATASET and SOURCE, or --paper DATASET")
    parser.set_defaults(**PROTOCOLS[options.protocol])
    return parser.parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/study.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", nargs="?", choices=tuple(PUBLIC_DATASETS), metavar="DATASET", help=", ".join(PUBLIC_DATASETS))
    add("source", nargs="?", type=Path, metavar="SOURCE", help="what sfr_convert reads (sfr_convert -h)")
    add("--output", type=Path, help="folder for everything (<data set>_output)")
    add(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="quick",
        help="defaults: quick for minutes on a CPU; paper for 6000 iterations on a GPU at the planned spacing with "
        "ViT-B and LoRA (quick)",
    )
    data_options = parser.add_argument_group("data")
    data = data_options.add_argument
    data("--labelled", type=positive_number, default=4, metavar="N", help="labelled cases (4)")
    data("--cases-seed", type=whole_number, metavar="N", help="draws the labelled cases (the first of the list)")
    data("--allow-missing", action="store_true", help="go without cases of the list that are not there")
    data("--spacing", type=_spacing, metavar="MM", help="target spacing, or planned (LA: 2.5, else planned)")
    add_dataset_options(data_options)
    runs = parser.add_argument_group("what is trained").add_argument
    runs(
        "--trainers",
        nargs="+",
        choices=KNOWN_TRAINERS,
        default=DEFAULT_TRAINERS,
        metavar="TRAINER",
        help=f"{STOCK}, any of ours, or {ALL_LABELS}, which the share of the gap is measured by "
        f"({', '.join(DEFAULT_TRAINERS)})",
    )
    runs("--seeds", nargs="+", type=positive_number, default=(1, 2, 3), metavar="N", help="one run each (1 2 3)")
    runs("--iterations", type=positive_number, default=400, metavar="N", help="of every training (400)")
    runs("--iterations-per-epoch", type=positive_number, default=50, metavar="N", help="a divisor (50)")
    runs("--validation-iterations-per-epoch", type=positive_number, default=5, metavar="N", help="(5)")
    runs("--rounds", type=positive_number, default=1, metavar="N", help="of SFR+, after round 0 (1)")
    runs("--sam", choices=tuple(MODELS), default=DEFAULT_MODEL, help=f"({DEFAULT_MODEL})")
    runs("--adaptation", choices=tuple(ADAPTATIONS), help="how SAM is fine-tuned (as planned)")
    runs("--sam-iterations", type=positive_number, metavar="N", help="of its fine-tuning (as planned)")
    runs(
        "--sam-per-seed",
        action="store_true",
        help="fine-tune SAM for each seed, too, so that the spread over seeds has that of its labels",
    )
    runs(
        "--planner",
        help="nnU-Net planner; ExperimentPlanner96 for patches of 96 x 96 x 96 (ExperimentPlannerCPU on the CPU, else "
        "ExperimentPlanner)",
    )
    runs("--device", choices=tuple(PLANNERS), default="cpu", help="where to train (cpu)")
    runs("--threads", type=positive_number, default=2, metavar="N", help="of torch in each process (2)")
    add("--table-only", action="store_true", help="run nothing, write the table of what is there")
    add("--update-readme", action="store_true", help="write the table into benchmarks/README.md")
    add(
        "--paper",
        choices=paper_datasets(),
        metavar="DATASET",
        help=f"print the paper's tables of a data set ({', '.join(paper_datasets())}) with our numbers, and stop",
    )
    return parser


def _spacing(text: str) -> float | str:
    if text == PLANNED:
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be millimetres above 0, or planned, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
