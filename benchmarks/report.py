"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.options import workload_of
from nnunet_sfr.atomic import replacing
from nnunet_sfr.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One quantity of both trainers.

    Args:
        name: of the quantity, with its unit.
        stock: of nnUNetTrainer.
        sfr: of nnUNetTrainerSFR_MT.
        decimals: that are shown.
        limit: highest ratio that is allowed, or None.
    """

    name: str
    stock: float
    sfr: float
    decimals: int
    limit: float | None = None

    @property
    def ratio(self) -> float:
        return self.sfr / self.stock

    @property
    def exceeds(self) -> bool:
        return self.limit is not None and self.ratio > self.limit


def markdown_table(rows: Sequence[Row], heading: Sequence[str]) -> str:
    """The rows under (quantity, stock, ours, ratio, limit), aligned to be read as plain text too."""
    cells = [list(heading)]
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        cells.append(
            [row.name, f"{row.stock:.{row.decimals}f}", f"{row.sfr:.{row.decimals}f}", f"{row.ratio:.2f}", limit]
        )
    return aligned_table(cells)


def aligned_table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned to be read as plain text too: the first line is the heading, the first column text."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    first, *others = widths
    rule = "|".join(["", "-" * (first + 2), *("-" * (width + 1) + ":" for width in others), ""])
    lines = [_aligned(line, widths) for line in cells]
    return "\n".join([lines[0], rule, *lines[1:]])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    padded = [line[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"


def conditions(options: argparse.Namespace, patches_of: str, turns: str = "") -> dict[str, str]:
    """What was measured, for the lines below a table.

    Args:
        options: of :mod:`benchmarks.options`.
        patches_of: whose steps take unlabelled patches too.
        turns: said of the turns, behind their number.
    """
    workload = workload_of(options)
    return {
        "network": f"PlainConvUNet {'-'.join(map(str, workload.features))}, {workload.classes} classes",
        "patches": f"{workload.batch_size} ({patches_of}: and {workload.batch_size} unlabelled) of "
        + " x ".join(map(str, workload.patch_size)),
        "timing": f"{options.repeats} turns of {options.steps} steps each, after {options.warmup} to warm up{turns}",
    }


def with_facts(table: str, facts: Mapping[str, str]) -> str:
    """A table and, below it, what it means nothing without."""
    return "\n".join([table, "", *(f"- {name}: {fact}" for name, fact in facts.items())])


def circumstances(device_name: str, threads: int) -> dict[str, str]:
    """Machine, software and day, which a measurement means nothing without."""
    return {
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, threads used: {threads}",
        "device": device_name,
        "software": f"Python {platform.python_version()}, torch {version('torch')}, nnunetv2 {version('nnunetv2')}",
        "nnunet_sfr": f"{version('nnunet_sfr')}, commit {commit()}",
        "date": date.today().isoformat(),
    }


def cpu_model() -> str:
    """The processor's name; platform.processor() has none on Linux."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of this checkout, with "-dirty" behind it if tracked files differ."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*")
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def replace_section(file: Path, name: str, content: str) -> None:
    """Put ``content`` between ``<!-- name:start -->`` and ``<!-- name:end -->``.

    Raises:
        UserError: the file has not both markers.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, found_start, rest = file.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise UserError(f"{file}: has no lines {start} and {end}; put them where the table belongs")
    with replacing(file) as temporary:
        temporary.write_text(f"{before}{start}\n{content.strip()}\n{end}{after}", encoding="utf-8")
