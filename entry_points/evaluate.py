"""``sfr_evaluate``: predictions against their truths, and against other predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.command_lines import DEFAULT_PLANS
from nnunet_sfr.evaluation.rules import NSD_TOLERANCE_MM, RULES

from .command_line import NOTHING_WRITTEN, argument_parser, is_same_folder, length, positive_number, run

OUTPUT = "sfr_metrics.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, measure and report; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.dataset is not None and arguments.dataset_json is not None:
        parser.error("-d and -djfile both name a dataset.json; give one of them")
    if arguments.plans is not None and arguments.dataset is None:
        parser.error("-p names plans of a data set; add -d, or name their file with -pfile")
    for name, other in (("gt_folder", arguments.gt_folder), ("--compare", arguments.compare)):
        if is_same_folder(arguments.pred_folder, other):
            parser.error(f"pred_folder and {name} are one folder, {arguments.pred_folder}; there is nothing to measure")
    output: Path = arguments.output or arguments.pred_folder / OUTPUT
    if output.suffix != ".json":
        parser.error(f"-o must end in .json, got {output}; the CSV file is written beside it")

    def command() -> None:
        # importing torch takes seconds, which -h should not
        from nnunetv2.configuration import default_num_processes

        from nnunet_sfr.evaluation.comparison import compare
        from nnunet_sfr.evaluation.folders import Evaluation, evaluate_folder
        from nnunet_sfr.evaluation.label_map_format import find_format
        from nnunet_sfr.evaluation.output import check_output, csv_beside, write
        from nnunet_sfr.evaluation.printing import comparison_table, table, warning_lines

        check_output(output)
        source = find_format(
            arguments.pred_folder,
            dataset=arguments.dataset,
            plans_name=arguments.plans,
            dataset_json_file=arguments.dataset_json,
            plans_file=arguments.plans_file,
        )

        def evaluate(folder: Path) -> Evaluation:
            return evaluate_folder(
                arguments.gt_folder,
                folder,
                source.dataset_json,
                reader_writer=source.reader,
                processes=arguments.processes or default_num_processes,
                nsd_tolerance_mm=arguments.nsd_tolerance,
                allow_missing=arguments.chill,
                voxels=arguments.voxels,
            )

        evaluation = evaluate(arguments.pred_folder)
        other = evaluate(arguments.compare) if arguments.compare else None
        comparison = compare(evaluation, other) if other else None
        write(evaluation, comparison, output)
        for warning in warning_lines([*evaluation.warnings, *(other.warnings if other else ())], output.name):
            print(f"warning: {warning}", file=sys.stderr)
        print("\n".join(table(evaluation)))
        if comparison:
            print("\n" + "\n".join(comparison_table(evaluation, comparison)))
        print(f"\neverything is in {output}, every case and class in {csv_beside(output).name}")

    return run(command, interrupted=NOTHING_WRITTEN)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_evaluate",
        "Measure predictions against their truths, files of one name: Dice, Jaccard, 95HD, ASD, ASSD (in mm), "
        "normalised surface Dice, volumes and voxel counts of every case and class or region. Takes what "
        "nnUNetv2_evaluate_folder takes. Labels come from -djfile, else from -d, else from the dataset.json that "
        "nnU-Net puts beside its predictions.",
        needs_dataset=False,
        examples={
            "labelsTs predictions": "predictions of nnUNetv2_predict",
            "labelsTs predictions -d 42 --compare nnunet_predictions": "is it better than the other model?",
            "labelsTs predictions -d 42 --voxels -o voxels.json": "distances as in the paper's tables",
        },
        plans="with -d: nnU-Net plans identifier; only the reader is taken from the plans; default: "
        f"{DEFAULT_PLANS}, or the only plans of the data set",
    )
    parser.epilog = f"{' '.join(RULES.values())}\n\n{parser.epilog}"
    add = parser.add_argument
    add("gt_folder", type=Path, help="folder with the truths, <case><file ending>")
    add("pred_folder", type=Path, help="folder with the predictions, named like the truths")
    add(
        "-djfile",
        dest="dataset_json",
        type=Path,
        metavar="FILE",
        help="dataset.json with labels and file ending; default: that of -d, or the one in pred_folder",
    )
    add(
        "-pfile",
        dest="plans_file",
        type=Path,
        metavar="FILE",
        help="plans.json; only the reader is taken from it; default: that of -d and -p, or the one in pred_folder",
    )
    add(
        "-o",
        dest="output",
        type=Path,
        metavar="FILE.json",
        help=f"file to write, with a CSV file of the same name beside it; default: {OUTPUT} in pred_folder",
    )
    add(
        "-np",
        dest="processes",
        type=positive_number,
        metavar="N",
        help="cases to measure at a time; default: nnU-Net's, nnUNet_def_n_proc or 8",
    )
    add("--chill", action="store_true", help="leave out truths without a prediction, which are an error otherwise")
    add("--compare", type=Path, metavar="FOLDER", help="other predictions of the same cases, to show the difference to")
    add(
        "--voxels",
        action="store_true",
        help="distances and tolerance in voxels instead of mm, as in the tables of the paper and of its baselines",
    )
    add(
        "--nsd-tolerance",
        type=length,
        default=NSD_TOLERANCE_MM,
        metavar="MM",
        help="how far apart surfaces may be to agree, in the normalised surface Dice, in mm (with --voxels: in voxels)",
    )
    return parser
