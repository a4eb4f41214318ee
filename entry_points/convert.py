"""``sfr_convert``: a public data set in nnU-Net's raw layout, with unlabelled cases."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.command_lines import dataset_number as number_of
from nnunet_sfr.conversion import PUBLIC_DATASETS

from .command_line import (
    NOTHING_WRITTEN,
    HelpFormatter,
    dataset_number,
    positive_number,
    run,
    shown_examples,
    whole_number,
)
from .dataset_options import add_dataset_options, given_dataset_options

_WIDTH = 110
_EXAMPLES = {
    "nnunet Dataset005_X --labelled 4 --seed 1": "4 labelled cases of a labelled data set of yours",
    "LA left_atrium -d 42 --labelled 16": "the left atria in the folder left_atrium",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and convert; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    known = PUBLIC_DATASETS[arguments.name]
    try:
        options = given_dataset_options(arguments, arguments.name)
    except ValueError as error:
        parser.error(str(error))

    def command() -> None:
        from nnunet_sfr.conversion.raw_dataset import convert_source, dataset_folder
        from nnunet_sfr.conversion.source_dataset import ConversionRequest

        request = ConversionRequest(
            source=arguments.source,
            labelled=arguments.labelled or known.labelled,
            seed=arguments.seed,
            allow_missing=arguments.allow_missing,
            options=options,
        )
        source = known.open(request)
        folder = dataset_folder(arguments.dataset, str(source.record["dataset"]))
        convert_source(source, folder, overwrite=arguments.overwrite, processes=arguments.processes)
        counts = {name: len(cases) for name, cases in source.split.by_group().items()}
        print(f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        print(f"continue with: sfr_plan_and_preprocess -d {number_of(folder.name)}")

    return run(command, interrupted=NOTHING_WRITTEN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sfr_convert",
        description="Make nnUNet_raw/DatasetNNN_NAME from a public data set, or one of your own (nnunet), whole or not "
        "at all: labelled cases (imagesTr, labelsTr), unlabelled ones (imagesUl), and test cases with their truth "
        "(imagesTs, labelsTs). The truth of the unlabelled cases lies in labelsUl_truth, to measure pseudo-labels by; "
        "no training reads it. Every file is read and checked first; a call that was stopped does not read again what "
        "it had checked. Voxels stay as they are; sfr_plan_and_preprocess -overwrite_target_spacing chooses another "
        "grid.",
        epilog="\n\n".join(
            [
                "Data sets that are known:",
                *map(_described, PUBLIC_DATASETS),
                shown_examples("sfr_convert", _EXAMPLES),
            ]
        ),
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("name", choices=tuple(PUBLIC_DATASETS), metavar="NAME", help="data set, see below")
    add("source", type=Path, metavar="SOURCE", help="folder that holds it; of nnunet: name, number or folder")
    add(
        "-d",
        dest="dataset",
        type=dataset_number,
        metavar="ID",
        help="number that it shall have; default: that of the data set of this name, or the first from 500 that is "
        "free in all of nnU-Net's folders",
    )
    add(
        "--labelled",
        type=positive_number,
        metavar="N",
        help="number of labelled cases; of LA with splits.json, one that it lists; default: the paper's, see below",
    )
    add(
        "--seed",
        type=whole_number,
        metavar="N",
        help="draw the labelled cases with this seed; default: the first of the list",
    )
    add(
        "--allow-missing",
        action="store_true",
        help="convert the cases of the lists that are there, if the labelled ones are among them",
    )
    add("--overwrite", action="store_true", help="replace the data set of this number, if this command made it")
    add("-np", dest="processes", type=positive_number, default=1, metavar="N", help="cases to check at a time")
    add_dataset_options(parser.add_argument_group("options of some data sets"))
    return parser


def _described(name: str) -> str:
    known = PUBLIC_DATASETS[name]
    lines = {
        "SOURCE": known.layout,
        "cases": f"{known.cases} (--labelled {known.labelled})",
        "from": known.obtained,
        "disk": known.disk,
    }
    text = textwrap.wrap(f"{name}: {known.title}", _WIDTH, subsequent_indent=" " * 10)
    for label, value in lines.items():
        text += textwrap.wrap(f"{label + ':':<8}{value}", _WIDTH, initial_indent="  ", subsequent_indent=" " * 10)
    return "\n".join(text)
