"""Draw the bar chart of the left-atrium benchmark: ``python docs/figures/la_chart.py``.

Bars are means over seeds, whiskers their standard deviation, dots the seeds. The numbers are those that
``benchmarks/study.py --update-readme`` wrote into ``benchmarks/results/``, a file for each number of labelled cases.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Python puts the folder of a script on its path, and this script needs that of the benchmarks.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.studies.study import ALL_LABELS, STOCK
from nnunet_sfr.atomic import replacing
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, run
from nnunet_sfr.json_files import read_json

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
IMAGE = REPOSITORY / "docs" / "images" / "la_benchmark.png"
PANELS = (("dice", "Dice (higher is better)", "{:.3f}"), ("hd95_mm", "95HD in mm (lower is better)", "{:.1f}"))
COLOURS = {"SFRPlus": "#B2182B", "SFR": "#E08214", "": "#4393C3"}
"""By the part of a trainer's name that says where its labels come from; told apart by brightness too."""
STOCK_COLOURS = {STOCK: "#878787", ALL_LABELS: "#4D4D4D"}
WIDTH, LINE_HEIGHT, MARGIN = 9.0, 0.42, 1.25
"""In inches."""
DPI = 160
ROOM_FOR_NUMBERS = 1.22
"""The axis ends this much behind the longest bar."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; the exit code is 1 for a mistake of the user."""
    options = _parser().parse_args(arguments)

    def command() -> None:
        files = options.results or sorted(RESULTS.glob("la_*.json"), key=_labelled)
        figure = draw([read_json(file, "run benchmarks/study.py --update-readme first") for file in files])
        with replacing(options.output) as temporary:
            figure.savefig(temporary, dpi=DPI)
        print(options.output)

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def draw(studies: Sequence[Mapping[str, Any]]) -> Figure:
    """The chart of one or several studies.

    Args:
        studies: each with ``study``, and for each trainer, metric and seed the mean over the test cases.
    """
    trainers = {
        _bar_name(trainer, results): values for results in studies for trainer, values in results["trainers"].items()
    }
    figure = Figure(figsize=(WIDTH, MARGIN + LINE_HEIGHT * len(trainers)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (metric, title, number) in zip(panels, PANELS, strict=True):
        _draw_metric(axes, {trainer: list(values[metric].values()) for trainer, values in trainers.items()}, number)
        axes.set_title(title, fontsize=11)
    study = studies[0]["study"]
    spacing = "planned spacing" if study["spacing"] is None else f"{study['spacing']:g} mm"
    adaptations = sorted({results["study"]["adaptation"] or "as planned" for results in studies})
    figure.suptitle(
        f"Left atrium, {spacing}, {study['iterations']} iterations each, SAM's adaptation: {', '.join(adaptations)}",
        fontsize=12,
    )
    return figure


def _draw_metric(axes: Axes, values: Mapping[str, Sequence[float]], number: str) -> None:
    places = range(len(values))
    means = [statistics.fmean(of_seeds) for of_seeds in values.values()]
    spreads = [statistics.stdev(of_seeds) if len(of_seeds) > 1 else 0.0 for of_seeds in values.values()]
    axes.barh(places, means, xerr=spreads, height=0.62, color=[colour_of(name) for name in values], ecolor="#222222")
    longest = max(mean + spread for mean, spread in zip(means, spreads, strict=True))
    for place, mean, spread, of_seeds in zip(places, means, spreads, values.values(), strict=True):
        axes.plot(of_seeds, [place] * len(of_seeds), "o", color="white", markeredgecolor="#222222", markersize=4)
        end = max(mean + spread, *of_seeds)
        axes.text(end + 0.02 * longest, place, number.format(mean), va="center", fontsize=10)
    axes.set_yticks(places, list(values), fontsize=10)
    axes.set_ylim(len(values) - 0.4, -0.6)  # the first trainer on top
    axes.set_xlim(0, ROOM_FOR_NUMBERS * longest)
    axes.spines[["top", "right"]].set_visible(False)


def _bar_name(trainer: str, results: Mapping[str, Any]) -> str:
    if trainer == ALL_LABELS:
        return f"{trainer}, {results['cases']['labelled'] + results['cases']['unlabelled']} labelled"
    return f"{trainer}, {results['study']['labelled']} labelled"


def colour_of(trainer: str) -> str:
    """By where the trainer's labels come from."""
    name = trainer.split(",")[0]
    if name in STOCK_COLOURS:
        return STOCK_COLOURS[name]
    return next(colour for part, colour in COLOURS.items() if part in trainer)


def _labelled(file: Path) -> int:
    return int(file.name.split("_")[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="docs/figures/la_chart.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="*", help="numbers of studies (all in benchmarks/results)")
    parser.add_argument("--output", type=Path, default=IMAGE, help=f"PNG to write ({IMAGE.name})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
