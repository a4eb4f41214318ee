"""What the commands share: nnU-Net's flags, and errors as one line."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nnunet_sfr.command_lines import DEFAULT_CONFIGURATION, DEFAULT_PLANS
from nnunet_sfr.cores import require_numbers
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.interruption import InterruptedRunError, ending_signals_raise

if TYPE_CHECKING:
    from nnunet_sfr.dataset import SFRDataset

_EXAMPLE_WIDTH = 48
"""Characters of an example's arguments up to which the purposes of all stand below one another."""

SMALLEST_SPACING, LARGEST_SPACING = 1e-4, 1e3
"""Millimetres between voxels, from electron microscopy to what no scanner makes."""


class HelpFormatter(argparse.HelpFormatter):
    """Ends the help of an option with its default, where the help itself does not, and keeps indented paragraphs."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        has_none = default is None or isinstance(default, bool) or default is argparse.SUPPRESS
        if not action.help or action.required or not action.option_strings or has_none:
            return action.help
        return f"{action.help}; default: {' '.join(map(str, default)) if isinstance(default, list) else '%(default)s'}"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # examples and tables have lines of their own; argparse wraps everything or nothing
        return "\n\n".join(
            paragraph if "\n  " in paragraph else "\n".join(self._split_lines(paragraph, width))
            for paragraph in text.split("\n\n")
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def argument_parser(
    command: str, description: str, *, examples: Mapping[str, str], needs_dataset: bool = True, plans: str | None = None
) -> argparse.ArgumentParser:
    """A parser with nnU-Net's ``-d`` and ``-p``, which almost every command has.

    Args:
        command: its name.
        description: of the whole command, for the help.
        examples: what to type after the command's name, and what it is for.
        needs_dataset: whether ``-d`` must be given.
        plans: help of ``-p``, where it is not nnU-Net's default or the only plans.
    """
    parser = argparse.ArgumentParser(
        prog=command, description=description, epilog=shown_examples(command, examples), formatter_class=HelpFormatter
    )
    parser.add_argument(
        "-d", dest="dataset", required=needs_dataset, metavar="ID", help="number or name of the data set"
    )
    parser.add_argument(
        "-p",
        dest="plans",
        type=plain_name,
        metavar="PLANS",
        help=plans or f"nnU-Net plans identifier; default: {DEFAULT_PLANS}, or the only plans of the data set",
    )
    return parser


def shown_examples(command: str, examples: Mapping[str, str]) -> str:
    """The examples at the end of a help, in lines that can be pasted.

    Args:
        command: its name.
        examples: what to type after it, and what it is for.
    """
    width = min(_EXAMPLE_WIDTH, max(map(len, examples)))
    lines = [f"  {command} {arguments:<{width}}  # {purpose}" for arguments, purpose in examples.items()]
    return "\n".join(["examples:", *lines])


def plain_name(text: str) -> str:
    """A name that becomes a part of file names."""
    if not text or "/" in text or os.sep in text or text.startswith("."):
        raise argparse.ArgumentTypeError(f"must be a name, and no path, got {text!r}")
    return text


class Record(Protocol):
    """An entry of one of our tables."""

    @property
    def summary(self) -> str:
        """It in one line."""


def summaries(table: Mapping[str, Record]) -> str:
    """The entries of a table for the help of an option."""
    return "; ".join(f"{name}: {record.summary}" for name, record in table.items())


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """nnU-Net's ``-c`` for the commands that work on one configuration."""
    parser.add_argument(
        "-c",
        dest="configuration",
        metavar="CONFIGURATION",
        help=f"nnU-Net configuration; default: {DEFAULT_CONFIGURATION}, or the only one that was planned",
    )


def add_fold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        dest="fold",
        type=fold,
        default="all",
        metavar="FOLD",
        help="fold of nnU-Net's cross-validation (0 to 4, needs five labelled cases), or of your own "
        "splits_final.json, or all for every labelled case",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-device",
        choices=("auto", "cuda", "cpu", "mps"),
        default="auto",
        help="where to compute; auto takes CUDA, then MPS, then the CPU. Choose a GPU with CUDA_VISIBLE_DEVICES",
    )


def add_with_nnunet(parser: argparse._ActionsContainer) -> None:
    """What the cross-check is to compare SAM with."""
    parser.add_argument(
        "--with-nnunet",
        action="store_true",
        help="beside SAM, train plain nnU-Net for a short time on the same cases (crosscheck.nnunet_iterations of the "
        "SFR plan in each fold), and say which of the two labels better",
    )


def add_round(parser: argparse.ArgumentParser, later_rounds: str) -> None:
    """``--round``, for the commands that SFR+ repeats.

    Args:
        parser: to add to.
        later_rounds: what the command does in a round of SFR+, for the help.
    """
    parser.add_argument(
        "--round",
        type=whole_number,
        default=0,
        metavar="R",
        help=f"0 for SFR; a round of SFR+, from 1, {later_rounds}",
    )


def whole_number(text: str) -> int:
    """0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0, 1, 2, ..., got {text!r}")
    return int(text)


def positive_number(text: str) -> int:
    """1, 2, 3, ..."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def dataset_number(text: str) -> int:
    """1 to 999, as nnU-Net numbers data sets."""
    if not text.isdecimal() or not 1 <= int(text) <= 999:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 999, got {text!r}")
    return int(text)


def port_number(text: str) -> int:
    """1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {2**16 - 1}, got {text!r}")
    return int(text)


def fold(text: str) -> int | str:
    """``"all"`` or a number, as nnU-Net takes it."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be all, or 0, 1, 2, ..., got {text!r}")
    return int(text)


def positive_length(text: str) -> float:
    """A number above 0 that is finite."""
    value = _finite(text)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def length(text: str) -> float:
    """A distance in mm, 0 or more."""
    value = _finite(text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"must be a length in mm, got {text!r}")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = _finite(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def finite_number(text: str) -> float:
    """Any number but infinity."""
    value = _finite(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def spacing(text: str) -> float:
    """A distance of voxels in mm."""
    value = _finite(text)
    if value is None or not SMALLEST_SPACING <= value <= LARGEST_SPACING:
        raise argparse.ArgumentTypeError(
            f"must be a length in mm, from {SMALLEST_SPACING:g} to {LARGEST_SPACING:g}, got {text!r}"
        )
    return value


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def open_named(arguments: argparse.Namespace) -> SFRDataset:
    """The data set that ``-d``, ``-p`` and ``-c`` name; says which plan and configuration are taken where it chooses.

    Raises:
        UserError: there is none, or several and none is nnU-Net's default.
    """
    from nnunet_sfr.dataset import open_dataset

    dataset = open_dataset(arguments.dataset, arguments.configuration, arguments.plans)
    for option, given, default, taken in (
        ("-p", arguments.plans, DEFAULT_PLANS, dataset.paths.plans_name),
        ("-c", arguments.configuration, DEFAULT_CONFIGURATION, dataset.paths.configuration),
    ):
        if given is None and taken != default:
            print(f"{option} {taken}, which is the only one of {dataset.paths.dataset_name}")
    return dataset


def is_same_folder(first: Path | None, second: Path | None) -> bool:
    """Whether two paths lead to one folder, links and file systems without capital letters included."""
    if first is None or second is None:
        return False
    if first.exists() and second.exists():
        return first.samefile(second)
    return first.resolve() == second.resolve()


def typed(command: str, argv: Sequence[str] | None) -> str:
    """The command as it was typed.

    Args:
        command: its name.
        argv: its arguments; None for those of this process.
    """
    return shlex.join([command, *(sys.argv[1:] if argv is None else argv)])


RESUMES = "run the same command again, without --overwrite, to continue from what was saved last"
NOTHING_WRITTEN = "nothing was written"


def run(command: Callable[[], None], *, interrupted: str = RESUMES, checks_variables: bool = True) -> int:
    """Call a command; an error that its user can correct becomes one line on stderr and an exit code.

    The exit code is 1, that of the step that failed, or for a signal 128 and its number.

    Args:
        command: without arguments.
        interrupted: what a user is told whose signal ended it.
        checks_variables: whether to refuse variables with which nnU-Net cannot be imported.
    """
    try:
        # SIGINT stays Python's KeyboardInterrupt, which libraries and their worker processes know
        with ending_signals_raise(("SIGTERM", "SIGHUP")), file_errors_explained():
            if checks_variables:
                require_numbers(os.environ)
            command()
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("error: memory ran out; use fewer processes (-np), or plan a coarser grid", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # whoever read the output has enough (sfr_doctor | head); Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (KeyboardInterrupt, InterruptedRunError) as error:
        name, code = (str(error), error.exit_code) if isinstance(error, InterruptedRunError) else ("SIGINT", 130)
        print(f"interrupted ({name}); {interrupted}", file=sys.stderr)
        return code
    return 0
