"""``sfr_convert``: a public data set in nnU-Net's raw layout, with unlabelled cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.conversion import PUBLIC_DATASETS

from .command_line import NOTHING_WRITTEN, positive_number, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and convert; returns the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        from nnunet_sfr.conversion.raw_dataset import dataset_folder

        folder = dataset_folder(arguments.dataset, arguments.name)
        split = PUBLIC_DATASETS[arguments.name].load()(
            arguments.source,
            folder,
            labelled=arguments.labelled,
            allow_missing=arguments.allow_missing,
            overwrite=arguments.overwrite,
        )
        print(
            f"{folder}: {len(split.labelled)} labelled, {len(split.unlabelled)} unlabelled, {len(split.test)} to test"
        )
        print(f"go on with: sfr_plan_and_preprocess -d {arguments.dataset}")

    return run(command, interrupted=NOTHING_WRITTEN)


def _parser() -> argparse.ArgumentParser:
    known = "\n".join(f"  {name}: {dataset.description}" for name, dataset in PUBLIC_DATASETS.items())
    parser = argparse.ArgumentParser(
        prog="sfr_convert",
        description="Make nnUNet_raw/DatasetNNN_NAME from a public data set, whole or not at all: labelled cases "
        "(imagesTr, labelsTr), unlabelled ones (imagesUl), and test cases with their truth (imagesTs, labelsTs). The "
        "truth of the unlabelled cases lies in labelsUl_truth, to measure pseudo-labels by; no training reads it. "
        "Voxels stay as they are; sfr_plan_and_preprocess -overwrite_target_spacing chooses another grid.",
        epilog=f"Data sets that are known:\n{known}",
    )
    parser.add_argument("name", choices=tuple(PUBLIC_DATASETS), metavar="NAME", help="data set, see below")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder that holds it")
    parser.add_argument(
        "-d", dest="dataset", type=_dataset_number, required=True, metavar="ID", help="number that it shall have"
    )
    parser.add_argument(
        "--labelled",
        type=positive_number,
        default=16,
        metavar="N",
        help="number of labelled cases; of a folder with splits.json, one that it lists (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="convert the cases of the standard lists that are there, if the labelled ones are among them",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the data set of this number, if this command made it"
    )
    return parser


def _dataset_number(text: str) -> int:
    """1 to 999, as nnU-Net numbers data sets."""
    if not text.isdecimal() or not 1 <= int(text) <= 999:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 999, got {text!r}")
    return int(text)
