"""``sfr_review``: look at pseudo-labels and correct them in the browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .command_line import add_configuration, add_fold, argument_parser, port_number, run, typed


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and serve the page; returns the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        # the server's library is imported by this command alone
        from nnunet_sfr.review.running import review

        review(
            arguments.dataset,
            arguments.configuration,
            arguments.plans,
            arguments.fold,
            typed=typed("sfr_review", argv),
            port=arguments.port,
            open_browser=arguments.open_browser,
        )

    exit_code: int = run(command, interrupted="what was drawn and decided is kept, and the same command continues")
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = argument_parser(
        "sfr_review",
        "Show the pseudo-labels in the browser, the least certain first, in three planes and 3D, to correct them there "
        "with brush, eraser and fill. Label maps that are saved or accepted lie in SFR_review/corrected of the data "
        "set's nnUNet_results, from where sfr_add_labels takes them (the page can run it). The page is served to this "
        "machine alone, until Ctrl-C; what was drawn and decided is on the disk at once.",
        examples={
            "-d 42": "opens the page in a browser",
            "-d 42 --no-browser --port 8042": "on another machine, through ssh -L 8042:127.0.0.1:8042",
        },
    )
    add_configuration(parser)
    add_fold(parser)
    parser.add_argument(
        "--port", type=port_number, metavar="PORT", help="port of the page on this machine; default: any that is free"
    )
    parser.add_argument(
        "--no-browser",
        dest="open_browser",
        action="store_false",
        help="only print the address, for a browser at the other end of an ssh tunnel",
    )
    return parser
