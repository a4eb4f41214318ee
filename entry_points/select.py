"""``sfr_select``: which unlabelled cases a model is sure of, before a round of SFR+."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.confidence_measures import MEASURES, PAPER, PAPER_MEASURE, PAPER_THRESHOLD
from nnunet_sfr.settings import CONFIDENCE_SOURCES, RoundSettings

from .command_line import add_configuration, add_fold, argument_parser, fraction, open_named, run, whole_number


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and select; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.round == 0:
        parser.error("--round must be 1 or later: round 0 learns from all pseudo-labels")

    def command() -> None:
        dataset = open_named(arguments)

        from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
        from nnunet_sfr.selection import make_rule, read_identifiers, select
        from nnunet_sfr.selection_report import plot, selection_table, warnings

        rule = make_rule(
            dataset,
            confidence=arguments.confidence,
            confidence_of=arguments.confidence_of,
            threshold=arguments.threshold,
            high_fraction=arguments.quantile,
        )
        selection = select(
            dataset,
            arguments.fold,
            arguments.round,
            rule,
            overrule_high=read_identifiers(arguments.high) if arguments.high else (),
            overrule_low=read_identifiers(arguments.low) if arguments.low else (),
        )
        file = dataset.paths.selection(arguments.fold, arguments.round)
        plot(selection, file.with_suffix(".png"))
        print(f"{rule.confidence} of {rule.confidence_of}")
        print("\n".join(selection_table(selection)))
        store = PseudoLabelStore.open(
            dataset.paths.model_pseudo_labels(arguments.fold, arguments.round), grid=dataset.grid
        )
        for warning in warnings(selection, store, dataset.class_names):
            print(f"warning: {warning}", file=sys.stderr)
        print(f"the choice is in {file}, its histogram in {file.with_suffix('.png').name}")

    return run(command)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "sfr_select",
        "Before a round of SFR+, divide the unlabelled cases: those of high confidence will train SAM with the "
        "re-trained model's labels, those of low confidence will get SAM's new labels and train the model. Reads what "
        "sfr_pseudolabel --round R -tr TRAINER stored.",
        examples={
            "-d 42 --round 1": "half of the cases, by the measure of the SFR plan",
            "-d 42 --round 1 --threshold 0.8": "all that reach 0.8",
            "-d 42 --round 1 --high good.txt --low bad.txt": "some by hand",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    parser.add_argument("--round", type=whole_number, default=1, metavar="R", help="the round that is to begin")
    parser.add_argument(
        "--confidence",
        choices=(PAPER, *MEASURES),
        metavar="MEASURE",
        help=f"what to tell the cases apart by: {', '.join(MEASURES)}, or {PAPER} ({PAPER_MEASURE} with a "
        f"threshold of {PAPER_THRESHOLD}); default: what the SFR plan says, {RoundSettings.confidence} in a new one",
    )
    parser.add_argument(
        "--confidence-of",
        choices=CONFIDENCE_SOURCES,
        help="whose confidence counts: that of the re-trained model, or that of SAM in the round before; default: what "
        f"the SFR plan says, {RoundSettings.confidence_of} in a new one",
    )
    sides = parser.add_mutually_exclusive_group()
    sides.add_argument(
        "--threshold", type=fraction, metavar="T", help="cases with at least this confidence (0 to 1) are high"
    )
    sides.add_argument(
        "--quantile",
        type=fraction,
        metavar="SHARE",
        help="this share of the cases is high (0 to 1); default: what the SFR plan says, "
        f"{RoundSettings.high_fraction} in a new one",
    )
    for side in ("high", "low"):
        parser.add_argument(
            f"--{side}",
            type=Path,
            metavar="FILE",
            help=f"text file of identifiers, one a line, that are {side} whatever their confidence; default: none",
        )
    return parser
