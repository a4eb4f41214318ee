"""``sfr_add_labels``: corrected label maps come back, and unlabelled cases become labelled ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.cores import available_cores
from nnunet_sfr.paths import resolve_dataset_name

from .command_line import argument_parser, positive_number, run, typed


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and take the labels; returns the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        name = resolve_dataset_name(arguments.dataset)

        # importing torch takes seconds, which neither -h nor a wrong number should
        from nnunet_sfr.corrections.add_labels import add_labels

        add_labels(
            name,
            arguments.folder,
            typed=typed("sfr_add_labels", argv),
            plans=arguments.plans,
            processes=arguments.processes,
        )

    exit_code: int = run(command)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = argument_parser(
        "sfr_add_labels",
        "Take corrected label maps as labels. The cases move from imagesUl to imagesTr, are preprocessed as labelled "
        "ones by every plan that there is (which stays as it is), join the training cases of every fold, and leave the "
        "pseudo-labels; nothing else is computed again. Everything is checked before anything changes, and a call that "
        "was stopped is completed by the next one. In the end it shows which commands to run again, with -p those of "
        "one plan.",
        examples={
            "-d 42 -i corrected": "corrected label maps, <case>.nii.gz, from any program",
            "-d 42 -i nnUNet_results/Dataset042_Heart/SFR_review/corrected": "those of sfr_review",
        },
        plans="nnU-Net plans identifier, for the commands that are shown in the end; default: those of all plans",
    )
    parser.add_argument(
        "-i",
        dest="folder",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="label maps of unlabelled cases, called <case> and the data set's file ending, on the grid of the image, "
        "with the label values of dataset.json: those of sfr_pseudolabel --export, corrected, for example. A case that "
        "has this very label already is passed over",
    )
    parser.add_argument(
        "-np",
        dest="processes",
        type=positive_number,
        default=min(4, available_cores()),
        metavar="N",
        help="processes that read and preprocess; each needs memory for a case at full size",
    )
    return parser
