"""What ``sfr_select`` shows of a choice: a table of counts, warnings, and a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_sfr.atomic import replacing
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.labelling.emptiness import counted_voxels, find_emptiness
from nnunet_sfr.selection import Selection

HIGH_COLOUR, LOW_COLOUR = "#0072b2", "#d55e00"
"""Okabe and Ito's blue and vermilion, which colour-blind people tell apart."""


def selection_table(selection: Selection) -> list[str]:
    """Who is high and who is low, each with its value, the surest first; then the counts."""
    by_confidence = sorted(selection.values, key=lambda case: (_rank(selection.values[case]), case))
    overruled = {case for cases in selection.overruled.values() for case in cases}
    width = max(map(len, by_confidence), default=0)
    high = set(selection.high)
    lines = []
    for case in by_confidence:
        value = selection.values[case]
        remark = "  (overruled)" if case in overruled else ""
        lines.append(
            f"{case:<{width}}  {'   -  ' if value is None else f'{value:.4f}'}  "
            f"{'high' if case in high else 'low'}{remark}"
        )
    return [*lines, f"{len(high)} high, {len(selection.low)} low"]


def _rank(value: float | None) -> float:
    return np.inf if value is None else -value


def warnings(selection: Selection, model: PseudoLabelStore, class_names: dict[str, str]) -> list[str]:
    """What a user should know before the round begins.

    Args:
        selection: the choice.
        model: store with the model's labels, which the high cases carry to SAM.
        class_names: name by label value (as text), background left out.
    """
    found = []
    if not selection.high:
        found.append("no case is high: SAM will learn from the labelled cases alone; lower the threshold")
    if not selection.low:
        found.append("no case is low: the re-training will see no pseudo-label; raise the threshold")
    for name, cases in (("any case", [*selection.high, *selection.low]), ("a high case", selection.high)):
        records = {case: model.read_confidence(case) for case in cases}
        vanished = find_emptiness(counted_voxels(records), class_names).absent_classes
        if vanished:
            found.append(f"the model's labels of {name} do not have {', '.join(vanished)}")
            break
    return found


def plot(selection: Selection, file: Path) -> None:
    """Write the histogram of the measure as a PNG: high and low cases stacked, and the threshold.

    Args:
        selection: of one round.
        file: to write, a PNG.
    """
    sides = {
        f"high ({len(selection.high)})": (_values(selection, selection.high), HIGH_COLOUR),
        f"low ({len(selection.low)})": (_values(selection, selection.low), LOW_COLOUR),
    }
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(
        [values for values, _ in sides.values()],
        bins=_bins([value for values, _ in sides.values() for value in values]),
        stacked=True,
        label=list(sides),
        color=[colour for _, colour in sides.values()],
    )
    threshold = selection.rule.get("value_of_least_sure_high_case")
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.3f}")
    axes.set_xlabel(MEASURES[selection.rule["confidence"]].meaning)
    axes.set_ylabel("unlabelled cases")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150)


def _values(selection: Selection, cases: Sequence[str]) -> list[float]:
    return [value for case in cases if (value := selection.values[case]) is not None]


def _bins(values: Sequence[float]) -> list[float]:
    """Twenty bins over what there is; one value alone gets a bin of its own."""
    edges: list[float] = np.histogram_bin_edges(values, bins=20 if len(set(values)) > 1 else 1).tolist()
    return edges
