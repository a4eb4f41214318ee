"""What a training step of SFR costs over one of stock nnU-Net: ``python benchmarks/training_step.py``.

Measures wall time and peak memory of nnUNetTrainer with n patches and of nnUNetTrainerSFR_MT with n labelled and n
unlabelled patches, on the same network, in one run. benchmarks/README.md says how.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.measuring import (
    TRAINERS,
    Memory,
    in_fresh_process,
    measure,
)
from benchmarks.options import add_measuring_options, add_report_options, add_workload_options, workload_of
from benchmarks.project import Workload
from benchmarks.report import Row, circumstances, conditions, markdown_table, replace_section, with_facts
from nnunet_sfr.atomic import replacing
from nnunet_sfr.devices import resolve_device
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, run
from nnunet_sfr.errors import UserError

README = Path(__file__).with_name("README.md")
SECTION = "training_step"
MIB = 2**20


@dataclass(frozen=True)
class Measurement:
    """All that one run measured, and where.

    Args:
        workload: network and patches.
        circumstances: machine, software, day.
        seconds: of single steps, by trainer and turn.
        memory: by trainer.
    """

    workload: Workload
    circumstances: dict[str, str]
    seconds: list[list[list[float]]]
    memory: list[Memory]

    @property
    def ratios_by_turn(self) -> list[float]:
        """Of the median times: how far they lie apart is how far the machine can be trusted."""
        medians = ([statistics.median(turn) for turn in of_trainer] for of_trainer in self.seconds)
        return [sfr / stock for stock, sfr in zip(*medians, strict=True)]

    def rows(self, max_time_ratio: float, max_memory_ratio: float) -> list[Row]:
        stock_time, sfr_time = (statistics.median(itertools.chain(*of_trainer)) for of_trainer in self.seconds)
        rows = [Row("wall time, median (s)", stock_time, sfr_time, decimals=4, limit=max_time_ratio)]
        stock, sfr = self.memory
        for name, stock_peak, sfr_peak, limit in (
            ("peak of tensors (MiB)", stock.tensors, sfr.tensors, max_memory_ratio),
            ("peak of process, less idle (MiB)", stock.added, sfr.added, max_memory_ratio),
            ("peak of process (MiB)", stock.resident, sfr.resident, None),
        ):
            if stock_peak and sfr_peak is not None:
                rows.append(Row(name, stock_peak / MIB, sfr_peak / MIB, decimals=1, limit=limit))
        return rows


def main(arguments: Sequence[str] | None = None, call: Callable[..., Any] = in_fresh_process) -> int:
    """Measure and report.

    Args:
        arguments: of the command line.
        call: calls a function with its arguments and ``variables`` for its environment, in a process of its own.

    Returns:
        The exit code: 1 for a mistake of the user, or a limit that is exceeded where ``--enforce`` is given.
    """
    options = _parser().parse_args(arguments)

    def command() -> None:
        measurement = _measure(options, call)
        rows = measurement.rows(options.max_time_ratio, options.max_memory_ratio)
        report = _as_text(measurement, rows, options)
        print(report)
        if options.output is not None:
            _write(options.output, _as_json(measurement, rows) if options.output.suffix == ".json" else report)
        if options.update_readme:
            replace_section(README, SECTION, report)
        exceeding = [f"{row.name}: {row.ratio:.2f} times stock, allowed are {row.limit}" for row in rows if row.exceeds]
        if options.enforce and exceeding:
            raise UserError("; ".join(exceeding))

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def _measure(options: argparse.Namespace, call: Callable[..., Any]) -> Measurement:
    device = resolve_device(options.device)
    seconds, memory = measure(TRAINERS, options, call)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Measurement(workload_of(options), circumstances(name, options.threads), seconds, memory)


def _as_text(measurement: Measurement, rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Markdown that reads well in a terminal too."""
    names = [trainer.__name__ for trainer in TRAINERS]
    table = markdown_table(rows, ("one training step", *names, "ratio", "limit"))
    turns = f"; ratio of each turn: {', '.join(f'{ratio:.2f}' for ratio in measurement.ratios_by_turn)}"
    return with_facts(table, {**conditions(options, "SFR", turns), **measurement.circumstances})


def _as_json(measurement: Measurement, rows: Sequence[Row]) -> str:
    content = {
        **asdict(measurement),
        "trainers": [trainer.__name__ for trainer in TRAINERS],
        "ratios_by_turn": measurement.ratios_by_turn,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    return json.dumps(content, indent=2)


def _write(file: Path, content: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/training_step.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_workload_options(parser)
    add_measuring_options(parser)
    report = add_report_options(parser, enforced="a ratio")
    report.add_argument("--max-time-ratio", type=float, default=2.6, metavar="R", help="limit of the time (2.6)")
    report.add_argument("--max-memory-ratio", type=float, default=1.3, metavar="R", help="limit of the memory (1.3)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
