"""What a training step of each of our trainers costs over one of stock nnU-Net: ``python benchmarks/every_trainer.py``.

All of them train the same network in one run: nnUNetTrainer with n patches, ours with n labelled and n unlabelled ones.
benchmarks/README.md says how it is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.measuring import Memory, in_fresh_process, measure
from benchmarks.options import add_measuring_options, add_workload_options
from benchmarks.report import aligned_table, circumstances, conditions, replace_section, with_facts
from nnunet_sfr.devices import resolve_device
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, run
from nnunet_sfr.trainers import TRAINERS, find_trainer

README = Path(__file__).with_name("README.md")
SECTION = "every_trainer"
MIB = 2**20


def main(arguments: Sequence[str] | None = None, call: Callable[..., Any] = in_fresh_process) -> int:
    """Measure and print a table.

    Args:
        arguments: of the command line.
        call: calls a function with its arguments and ``variables`` for its environment, in a process of its own.

    Returns:
        The exit code: 1 for a mistake of the user.
    """
    options = _parser().parse_args(arguments)
    trainers: list[Any] = [nnUNetTrainer, *(find_trainer(name) for name in TRAINERS)]

    def command() -> None:
        device = resolve_device(options.device)
        seconds, memory = measure(trainers, options, call)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        facts = {**conditions(options, "ours"), **circumstances(name, options.threads)}
        report = with_facts(_table(trainers, seconds, memory), facts)
        print(report)
        if options.update_readme:
            replace_section(README, SECTION, report)

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def _table(trainers: Sequence[Any], seconds: Sequence[Sequence[Sequence[float]]], memory: Sequence[Memory]) -> str:
    """Markdown that reads well in a terminal too; the first trainer is the measure of the others."""
    medians = [statistics.median(chain(*turns)) for turns in seconds]
    cells = [["one training step", "median (s)", "ratio", "each turn", "peak of tensors (MiB)", "ratio"]]
    for trainer, turns, median, peak in zip(trainers, seconds, medians, memory, strict=True):
        of_turns = [
            statistics.median(turn) / statistics.median(stock) for turn, stock in zip(turns, seconds[0], strict=True)
        ]
        cells.append(
            [
                trainer.__name__,
                f"{median:.4f}",
                f"{median / medians[0]:.2f}",
                ", ".join(f"{ratio:.2f}" for ratio in of_turns),
                f"{peak.tensors / MIB:.1f}",
                f"{peak.tensors / memory[0].tensors:.2f}",
            ]
        )
    return aligned_table(cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/every_trainer.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_workload_options(parser)
    add_measuring_options(parser)
    parser.add_argument("--update-readme", action="store_true", help="write the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
