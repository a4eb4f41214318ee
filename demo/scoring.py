"""Dice of what was predicted against the truth that training never saw."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.source_dataset import ENDING
from nnunet_sfr.conversion.volume_folder import VolumeFolder
from nnunet_sfr.errors import UserError

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Score:
    """Dice of one case.

    Args:
        result: what is scored, ``"pseudo-label"`` for example.
        case: its name.
        dice: one value per foreground label, in the order of their numbers; NaN where truth and result have none.
    """

    result: str
    case: str
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        return _mean(self.dice)


def dice(first: Labels, second: Labels, label: int = 1) -> float:
    """2 |A and B| / (|A| + |B|) of one label; NaN if neither volume has it (nnU-Net's convention)."""
    in_first, in_second = first == label, second == label
    total = int(in_first.sum()) + int(in_second.sum())
    return 2 * int((in_first & in_second).sum()) / total if total else float("nan")


def read_labels(file: Path) -> Labels:
    """A label map, (z, y, x)."""
    labels: Labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return labels


def score_folder(
    result: str, folder: Path, cases: Sequence[str], volumes: VolumeFolder, labels: Sequence[int]
) -> list[Score]:
    """Score ``folder/CASE.nii.gz`` for every case that has a truth.

    Raises:
        UserError: a result is missing or lies on another grid than the truth.
    """
    scores = []
    for case in volumes.with_truth(cases):
        file = folder / f"{case}{ENDING}"
        if not file.is_file():
            raise UserError(f"{file}: the step before should have written it; look at its messages")
        truth, found = read_labels(volumes.label(case)), read_labels(file)
        if truth.shape != found.shape:
            raise UserError(f"{file}: has shape {found.shape}, but the truth has {truth.shape}; it cannot be scored")
        scores.append(Score(result, case, tuple(dice(truth, found, label) for label in labels)))
    return scores


def table_rows(scores: Sequence[Score], label_names: Sequence[str]) -> list[list[str]]:
    """Header, one row per case, and the mean of each kind of result after its cases."""
    several = len(label_names) > 1
    rows = [["result", "case", "Dice", *(label_names if several else [])]]
    for result in dict.fromkeys(score.result for score in scores):
        group = [score for score in scores if score.result == result]
        values = [(score.mean, *score.dice) if several else score.dice for score in group]
        rows += [[result, score.case, *_format(row)] for score, row in zip(group, values, strict=True)]
        rows.append([result, "mean", *_format([_mean(column) for column in zip(*values, strict=True)])])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns with a rule under the header and above each mean."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "  ".join("-" * width for width in widths)
    lines = []
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        lines += [line, rule] if number == 0 else [rule, line, ""] if row[1] == "mean" else [line]
    return "\n".join(lines).rstrip()


def write_table(rows: Sequence[Sequence[str]], folder: Path) -> None:
    """Write ``table.csv`` and ``table.md``."""
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    bold = [[f"**{cell}**" if row[1] == "mean" else cell for cell in row] for row in rows]
    rule = ["---", "---", *["---:"] * (len(rows[0]) - 2)]
    lines = [f"| {' | '.join(row)} |" for row in (bold[0], rule, *bold[1:])]
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _format(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
