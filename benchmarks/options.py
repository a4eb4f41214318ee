"""Options that benchmarks and the demonstration share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_sfr.entry_points.command_line import positive_number

if TYPE_CHECKING:
    from benchmarks.project import Workload

__all__ = [
    "add_measuring_options",
    "add_report_options",
    "add_workload_options",
    "positive_number",
    "whole_number",
    "workload_of",
]


def add_workload_options(parser: argparse.ArgumentParser) -> None:
    """Patch, network and batch; :func:`workload_of` reads them."""
    work = parser.add_argument_group("what a step works on")
    work.add_argument(
        "--patch", type=positive_number, nargs=3, default=(24, 40, 48), metavar="N", help="patch size (24 40 48)"
    )
    work.add_argument(
        "--features",
        type=positive_number,
        nargs="+",
        default=(16, 32, 64, 128),
        metavar="N",
        help="channels of each stage of the network (16 32 64 128)",
    )
    work.add_argument(
        "--batch-size", type=positive_number, default=2, metavar="N", help="labelled patches in a step (2)"
    )
    work.add_argument("--classes", type=_at_least_two, default=2, metavar="N", help="labels with background (2)")


def workload_of(options: argparse.Namespace) -> Workload:
    from benchmarks.project import Workload

    return Workload(tuple(options.patch), tuple(options.features), options.batch_size, options.classes)


def add_report_options(parser: argparse.ArgumentParser, *, enforced: str) -> argparse._ArgumentGroup:
    """Where the report goes, and whether limits count; returns the group for options of the benchmark's own.

    Args:
        parser: of the benchmark.
        enforced: what has a limit.
    """
    report = parser.add_argument_group("what becomes of it")
    report.add_argument(
        "--output", type=_report_file, metavar="FILE", help="write the report: .md, or .json with raw data"
    )
    report.add_argument("--update-readme", action="store_true", help="write the table into benchmarks/README.md")
    report.add_argument("--enforce", action="store_true", help=f"exit with code 1 if {enforced} exceeds its limit")
    return report


def _report_file(text: str) -> Path:
    file = Path(text)
    if file.suffix not in (".md", ".json"):
        raise argparse.ArgumentTypeError(f"must end with .md or .json, got {text!r}")
    return file


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """Steps, turns, device and threads."""
    import torch

    run = parser.add_argument_group("how it is measured")
    run.add_argument("--steps", type=positive_number, default=10, metavar="N", help="timed steps in a turn (10)")
    run.add_argument(
        "--warmup", type=positive_number, default=2, metavar="N", help="steps before them in each turn (2)"
    )
    run.add_argument("--repeats", type=positive_number, default=3, metavar="N", help="turns of each trainer (3)")
    run.add_argument("--device", "-device", choices=("cpu", "cuda"), default="cpu", help="where to train (cpu)")
    threads = torch.get_num_threads()
    run.add_argument(
        "--threads",
        type=positive_number,
        default=threads,
        metavar="N",
        help=f"threads of torch (its own choice: {threads})",
    )


def whole_number(text: str) -> int:
    """0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0, 1, 2, ..., got {text!r}")
    return int(text)


def _at_least_two(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number above 1, got {text!r}")
    return int(text)
