"""``sfr_report``: one page that shows pseudo-labels, confidences, rounds and trainings of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.cores import available_cores

from .command_line import add_configuration, add_fold, argument_parser, finite_number, open_named, positive_number, run

MOST_PROCESSES = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and make the report; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.window is not None and arguments.window[0] >= arguments.window[1]:
        parser.error(f"--window must rise from LOW to HIGH, got {' '.join(map(str, arguments.window))}")

    def command() -> None:
        dataset = open_named(arguments)

        # importing torch takes seconds, which neither -h nor a mistake in the call should
        from nnunet_sfr.atomic import require_writable
        from nnunet_sfr.report.gathering import ReportOptions
        from nnunet_sfr.report.making import make_report

        folder = arguments.output or dataset.paths.report(arguments.fold)
        require_writable(folder)
        page, contents = make_report(
            dataset,
            arguments.fold,
            folder,
            ReportOptions(
                trainers=arguments.trainers,
                all_sources=arguments.all_sources,
                max_pictures=arguments.max_pictures,
                annotate=arguments.annotate,
                processes=arguments.processes,
                window=None if arguments.window is None else tuple(arguments.window),
            ),
            single_file=arguments.single_file,
        )
        for alert in contents.alerts:
            print(f"look first: {alert.text}")
        for sentence in contents.missing:
            print(f"not shown: {sentence}")
        print(f"the report is {page}")

    return run(command)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_report",
        "Write a page that opens in any browser, without a network: the unlabelled cases with their pseudo-labels in "
        "pictures, confidences, volumes and their outliers, disagreement between SAM and the re-trained model, curves "
        "of every training, rounds, settings and versions, and the cases most worth annotating next (as CSV, too). "
        "Needs pseudo-labels; what else is missing is named, with the command that makes it. A second run draws only "
        "what changed.",
        examples={
            "-d 42": "then open index.html in the folder that it names",
            "-d 42 --single-file": "one file to send to a colleague",
            "-d 42 --window -1000 400": "CT in the window of the lung",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    parser.add_argument(
        "-tr",
        dest="trainers",
        nargs="+",
        metavar="TRAINER",
        help="show the curves of these trainers alone; default: of every model of this plan and fold",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        metavar="FOLDER",
        help="where to write; default: SFR_report__<plans>__<configuration>/fold_<f> in the data set's nnUNet_results",
    )
    parser.add_argument(
        "-np",
        dest="processes",
        type=positive_number,
        default=min(MOST_PROCESSES, available_cores()),
        metavar="N",
        help="processes that draw pictures, at most one for every 32 cases; each needs memory for a case",
    )
    parser.add_argument(
        "--window",
        type=finite_number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="Hounsfield units that are black and white when the page opens; default: the window of soft tissue, lung "
        "or bone that the labelled foreground lies in; the page offers the others, too",
    )
    parser.add_argument(
        "--single-file", action="store_true", help="put the pictures into the page, which can then be sent alone"
    )
    parser.add_argument(
        "--max-pictures",
        type=positive_number,
        metavar="N",
        help="draw pictures of so many cases, those of least confidence; default: of all",
    )
    parser.add_argument(
        "--all-sources",
        action="store_true",
        help="draw the labels of every round, and not those of round 0 and the latest of SAM and of the model alone",
    )
    parser.add_argument(
        "--annotate", type=positive_number, default=20, metavar="N", help="length of the list of cases to annotate next"
    )
    return parser
