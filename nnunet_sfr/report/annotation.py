"""Which cases are most worth annotating next: those of low confidence or in dispute, no two alike.

A case's *worth* is the mean of its ranks (0 to 1, ties share theirs) by low confidence, by the disagreement between SAM
and the re-trained model, and by whether a volume is an outlier; what is not known of a pool is left out. Cases are then
taken one after the other: the next is that with the highest worth x (1 - l^2), l being the likeness to the most alike
case taken before; the square lets twins wait and hardly touches the others.

Two cases are alike as far as the correlation of their thumbnails goes, times the mean ratio of their volumes (smaller
over larger). Images of one organ are all somewhat alike, so only what exceeds the median of all pairs counts: a pair
like most has likeness 0, twins have 1.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_sfr.atomic import replacing

RANKING_RULE = (
    "mean rank of low confidence, disagreement between SAM and the model, and outlying volumes; then one after the "
    "other, leaving out what is like a case already taken"
)
ANNOTATE_NEXT = "annotate_next.csv"
"""The list, beside the report's page."""
QUARTER = 0.75
"""A rank from here on is given as a reason: the case is among the worst quarter."""
USUAL_PERCENTILES = (10, 90)
"""Percentiles of the other cases' volumes that a reason names."""


@dataclass(frozen=True)
class Candidate:
    """What is known of a case.

    Args:
        case: identifier.
        confidence: in [0, 1]; None where nothing was found.
        disagreement: between SAM and the model; None without both.
        volumes_ml: by label value, as text.
        outliers: label values whose volume is far from that of the others.
        thumbnail: of its image, see :func:`nnunet_sfr.report.case_drawing.thumbnail`.
    """

    case: str
    confidence: float | None
    disagreement: float | None
    volumes_ml: Mapping[str, float]
    outliers: Sequence[str] = ()
    thumbnail: Sequence[float] = ()

    @property
    def is_empty(self) -> bool:
        return not any(self.volumes_ml.values())


@dataclass(frozen=True)
class RankedCase:
    """One case of the list, with reasons of a few words each."""

    case: str
    reasons: Sequence[str] = field(default_factory=list)


def rank_cases(
    candidates: Sequence[Candidate], count: int, class_names: Mapping[str, str], judge: str = ""
) -> list[RankedCase]:
    """The cases most worth annotating, the first first.

    Args:
        candidates: the labelled part of the pool.
        count: length of the list.
        class_names: by label value, as text.
        judge: whose confidences and volumes these are, for the reasons; "" where there is only one who could be meant.
    """
    if not candidates:
        return []
    ranks = _ranks(candidates)
    worth = np.mean(list(ranks.values()), axis=0)
    alike = similarity(candidates)
    closest = np.zeros(len(candidates))
    left = list(range(len(candidates)))
    chosen: list[RankedCase] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda index: (worth[index] * (1 - closest[index] ** 2), worth[index]))
        left.remove(best)
        closest = np.maximum(closest, alike[best])
        reasons = _reasons(
            candidates,
            best,
            {name: values[best] for name, values in ranks.items()},
            class_names,
            f" ({judge})" if judge else "",
        )
        chosen.append(RankedCase(candidates[best].case, reasons))
    return chosen


def _ranks(candidates: Sequence[Candidate]) -> dict[str, np.ndarray]:
    """Rank of every case from 0 (least) to 1 (most worth a look), by what tells cases of this pool apart."""
    columns: dict[str, list[float | None]] = {
        "confidence": [None if one.confidence is None else -one.confidence for one in candidates],
        "disagreement": [one.disagreement for one in candidates],
        "outlier": [float(bool(one.outliers)) for one in candidates],
    }
    ranks = {}
    for name, column in columns.items():
        if all(value is None for value in column) and name != "outlier":
            continue
        # no confidence: nothing was found, which is worst; no disagreement: one of the two has not labelled it
        unknown = np.inf if name == "confidence" else -np.inf
        ranks[name] = _fractional_ranks(np.array([unknown if value is None else value for value in column]))
    return ranks


def _fractional_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks over the number of the others, from 0 to 1; equal values share the mean of theirs, 0.5 if all are equal."""
    if len(values) == 1:
        return np.array([0.5])
    # as scipy.stats.rankdata, which takes a second to import
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    fractions: np.ndarray = (np.cumsum(counts) - (counts + 1) / 2)[indices] / (len(values) - 1)
    return fractions


def similarity(candidates: Sequence[Candidate]) -> np.ndarray:
    """How alike any two cases are beyond what is usual in this pool, (N, N) from 0 to 1."""
    thumbnails = np.array([one.thumbnail for one in candidates], dtype=float).reshape(len(candidates), -1)
    alike = np.clip(thumbnails @ thumbnails.T, 0, 1) * _volume_ratio(candidates)
    pairs = alike[np.triu_indices(len(candidates), k=1)]
    usual = float(np.median(pairs)) if pairs.size else 0.0
    if usual >= 1:
        return np.zeros_like(alike)  # all cases are the same
    beyond: np.ndarray = np.clip((alike - usual) / (1 - usual), 0, 1)
    return beyond


def _volume_ratio(candidates: Sequence[Candidate]) -> np.ndarray:
    """Smaller over larger volume of any two cases, mean over classes; 1 where neither has a class."""
    labels = sorted({label for one in candidates for label in one.volumes_ml})
    ratio = np.ones((len(candidates), len(candidates)))
    if not labels:
        return ratio
    ratios = []
    for label in labels:
        volumes = np.array([one.volumes_ml.get(label, 0.0) for one in candidates])
        larger = np.maximum(volumes[None], volumes[:, None])
        smaller = np.minimum(volumes[None], volumes[:, None])
        ratios.append(np.divide(smaller, larger, out=np.ones_like(larger), where=larger > 0))
    mean: np.ndarray = np.mean(ratios, axis=0)
    return mean


def _reasons(
    candidates: Sequence[Candidate], index: int, ranks: Mapping[str, float], class_names: Mapping[str, str], whose: str
) -> list[str]:
    """Why this case: all that puts it among the worst quarter, or else what it stands out by most."""
    one = candidates[index]
    told = {
        "confidence": None if one.confidence is None else f"low confidence {one.confidence:.2f}{whose}",
        "disagreement": None if not one.disagreement else f"SAM and the model disagree: {one.disagreement:.2f}",
    }
    reasons = [f"nothing found{whose}"] if one.is_empty else []
    reasons += [text for name, text in told.items() if text and ranks.get(name, 0) >= QUARTER]
    if not one.is_empty:
        reasons += [_outlier(candidates, index, label, class_names, whose) for label in one.outliers]
    if reasons:
        return reasons
    known = {"confidence": one.confidence, "disagreement": one.disagreement}
    highest = max(ranks, key=lambda name: -1 if known.get(name) is None else ranks[name])
    return [f"{highest} {known[highest]:.2f}" if known.get(highest) is not None else "like the others"]


def _outlier(
    candidates: Sequence[Candidate], index: int, label: str, class_names: Mapping[str, str], whose: str
) -> str:
    volume = candidates[index].volumes_ml.get(label, 0.0)
    name = class_names.get(label, label)
    if not volume:
        return f"no {name} found{whose}"
    reason = f"volume of {name} {_ml(volume)} ml{whose}"
    others = [one.volumes_ml.get(label, 0.0) for position, one in enumerate(candidates) if position != index]
    if not others:  # the cases that it was an outlier among are no candidates any more
        return reason
    low, high = np.percentile(others, USUAL_PERCENTILES)
    return f"{reason}, most others {_ml(low)} to {_ml(high)}"


def _ml(volume: float) -> str:
    return f"{volume:.1f}" if volume < 10 else f"{volume:.0f}"


def write_list(choices: Sequence[RankedCase], images: Mapping[str, Sequence[str]], file: Path) -> None:
    """The list as CSV: rank, case, image files (one for each channel), reasons.

    Args:
        choices: in their order.
        images: paths of the raw images by case; a case whose images are not on this machine is missing.
        file: to write.
    """
    with replacing(file) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "case", "images", "reasons"])
        for rank, choice in enumerate(choices, start=1):
            writer.writerow([rank, choice.case, "; ".join(images.get(choice.case, ())), "; ".join(choice.reasons)])
