"""Who has labelled the pool: every pseudo-label store of a fold, with the confidence that its cases have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import MANIFEST, Fold
from nnunet_sfr.report.contents import ReportSource
from nnunet_sfr.selection import Selection, read_selection

RETRAINED_MODEL, SELF_TRAINING, MAIN = "model", "self-training", "main"
"""Kinds of stores: what the re-trained model found before a round, what a self-training labelled within its run, and
what the trainers read."""
_NAMES = {
    RETRAINED_MODEL: re.compile(r"round_(?P<round>[1-9]\d*)_model"),
    MAIN: re.compile(r"round_(?P<round>\d+)"),
    SELF_TRAINING: re.compile(r"(?P<trainer>.+)_round_(?P<round>[1-9]\d*)"),
}


@dataclass(frozen=True)
class LabelSource:
    """One store.

    Args:
        store: opened.
        kind: ``MAIN``, ``RETRAINED_MODEL`` or ``SELF_TRAINING``.
        round_index: of SFR+; for self-training how often it had labelled the pool.
        records: confidence record by case, of the cases whose labels fit their images.
        measure: which confidence counts, a name in :data:`nnunet_sfr.confidence_measures.MEASURES`.
        threshold: from which on cases are high; None where this store decided no selection.
        problems: what is wrong with it, one sentence each.
    """

    store: PseudoLabelStore
    kind: str
    round_index: int
    records: Mapping[str, Mapping[str, Any]]
    measure: str
    threshold: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.store.folder.name

    @property
    def made_by(self) -> Provenance:
        return self.store.made_by

    @property
    def name(self) -> str:
        """For people: who, with which trainer's network, and when."""
        if self.kind == SELF_TRAINING:
            return f"{self.made_by.label}, labelling {self.round_index}"
        trainer = f" ({self.made_by.trainer})" if self.made_by.trainer else ""
        before = "before " if self.kind == RETRAINED_MODEL else ""
        return f"{self.made_by.label}{trainer}, {before}round {self.round_index}"

    def confidence(self, case: str) -> float | None:
        """The measure of one case that this store has."""
        return self._confidences[case]

    @cached_property
    def _confidences(self) -> Mapping[str, float | None]:
        return MEASURES[self.measure].values(self.records)

    def voxels(self, case: str) -> Mapping[str, int]:
        """Size of every class in voxels, by label value as text; what lies outside the non-zero mask (-1) is none."""
        counted: Mapping[str, int] | None = self.records[case].get("class_voxels")
        if counted is None:  # a store that another tool filled
            values, counts = np.unique(self.store.read_labels(case), return_counts=True)
            counted = {str(value): int(count) for value, count in zip(values, counts, strict=True) if value >= 0}
        return counted

    def show(self) -> ReportSource:
        return ReportSource(self.key, self.name, self.measure, self.threshold)


@dataclass(frozen=True)
class Pool:
    """The unlabelled cases and all that labelled them.

    Args:
        sources: in the order in which SFR makes them, the latest last.
        selections: of the rounds that have one that fits, by round.
        problems: what could not be read or does not fit, one sentence each.
    """

    sources: Sequence[LabelSource]
    selections: Mapping[int, Selection]
    problems: Sequence[str]

    def latest(self, *, sam: bool) -> LabelSource | None:
        """SAM's latest labels, or those of the re-trained model (``sam`` False)."""
        found = [
            source for source in self.sources if (source.made_by.is_sam if sam else source.kind == RETRAINED_MODEL)
        ]
        return found[-1] if found else None


def read_pool(dataset: SFRDataset, fold: Fold, properties: Mapping[str, Mapping[str, Any]]) -> Pool:
    """Open every store and every selection of a fold.

    Args:
        dataset: planned and preprocessed.
        fold: whose labels.
        properties: of every unlabelled case, as nnU-Net's preprocessing recorded them.

    Raises:
        UserError: there is no store that fits the plan, or a record is damaged.
    """
    problems: list[str] = []
    stores: list[tuple[tuple[Any, ...], str, int, PseudoLabelStore]] = []
    folder = dataset.paths.all_pseudo_labels(fold)
    for file in sorted(folder.glob(f"*/{MANIFEST}")):
        kind, round_index = _kind_and_round(file.parent.name)
        if kind is None:
            continue
        try:
            store = PseudoLabelStore.open(file.parent, grid=dataset.grid)
        except UserError as problem:
            problems.append(str(problem))
        else:
            stores.append((_position(kind, round_index, file.stat().st_mtime), kind, round_index, store))
    if not stores:
        label = shell_text(CommandLines.of(dataset.paths, fold).pseudo_label())
        raise UserError(problems[0] if problems else f"{folder}: there are no pseudo-labels to report on; run {label}")
    stores.sort(key=lambda store: store[0])
    selections = _read_selections(dataset, fold, stores, sorted(properties), problems)
    hashes = {case: image_hash(dict(values)) for case, values in properties.items()}
    sources = []
    for _, kind, round_index, store in stores:
        rule = _rule_of(kind, round_index, selections)
        sources.append(_open_source(dataset, store, kind, round_index, hashes, rule))
    return Pool(sources, selections, problems + [problem for source in sources for problem in source.problems])


def _kind_and_round(name: str) -> tuple[str | None, int]:
    for kind, pattern in _NAMES.items():
        match = pattern.fullmatch(name)
        if match:
            return kind, int(match["round"])
    return None, 0


def _position(kind: str, round_index: int, written: float) -> tuple[Any, ...]:
    """Round 0, the self-trainings that follow it, then in every round the model's labels and the new ones."""
    if kind == SELF_TRAINING:
        return 0, 1, written
    return round_index, int(kind == MAIN) if round_index else 0, written


def _read_selections(
    dataset: SFRDataset,
    fold: Fold,
    stores: Sequence[tuple[tuple[Any, ...], str, int, PseudoLabelStore]],
    pool: Sequence[str],
    problems: list[str],
) -> dict[int, Selection]:
    """The selections that fit; for the others, and those that are missing, a sentence is added to ``problems``."""
    found = {}
    for _, kind, round_index, store in stores:
        if kind != RETRAINED_MODEL:
            continue
        file = dataset.paths.selection(fold, round_index)
        again = shell_text(CommandLines.of(dataset.paths, fold).select(round_index))
        try:
            selection = read_selection(file, pool)
        except UserError as problem:
            missing = f"round {round_index} has no choice of high and low cases; run {again}"
            problems.append(str(problem) if file.is_file() else missing)
            continue
        if not selection.is_of(store):
            problems.append(f"{file}: the model's labels were made again since; run {again}")
            continue
        found[round_index] = selection
    return found


def _rule_of(kind: str, round_index: int, selections: Mapping[int, Selection]) -> Mapping[str, Any]:
    """The rule of the selection that this store's confidences decided; empty if there is none."""
    if kind == RETRAINED_MODEL:
        judged, whose = round_index, "model"
    elif kind == MAIN:
        judged, whose = round_index + 1, "sam"
    else:
        return {}
    rule = selections[judged].rule if judged in selections else {}
    return rule if rule.get("confidence_of") == whose else {}


def _open_source(
    dataset: SFRDataset,
    store: PseudoLabelStore,
    kind: str,
    round_index: int,
    hashes: Mapping[str, str],
    rule: Mapping[str, Any],
) -> LabelSource:
    records = {case: store.read_confidence(case) for case in hashes if store.has(case)}
    stale = sorted(case for case, record in records.items() if record.get("input", hashes[case]) != hashes[case])
    for case in stale:
        del records[case]
    again = "run the sfr_pseudolabel that fills it again"
    problems = []
    if stale:
        problems.append(f"{store.folder}: the image of {stale[0]} changed since it was labelled; {again}")
    missing = sorted(hashes.keys() - records.keys() - set(stale))
    if missing:
        problems.append(
            f"{store.folder}: no label for {missing[0]} ({len(missing)} of {len(hashes)} cases are missing); {again}"
        )
    wanted = rule.get("confidence", dataset.settings.rounds.confidence)
    return LabelSource(
        store,
        kind,
        round_index,
        records,
        measure=best_measure(list(records.values()), wanted),
        threshold=rule.get("value_of_least_sure_high_case"),
        problems=tuple(problems),
    )


def best_measure(records: Sequence[Mapping[str, Any]], wanted: str) -> str:
    """The measure that is wanted; where no case has it, the first in ``MEASURES`` (the best come first) that one has.

    SAM's first labels have no ``joint_agreement``, as there are no others to compare them with; imported label maps
    have nothing at all, and keep the name of what is wanted.

    Args:
        records: confidence records of the cases.
        wanted: a name in :data:`nnunet_sfr.confidence_measures.MEASURES`.
    """
    for name in (wanted, *MEASURES):
        if any(MEASURES[name].value(record) is not None for record in records):
            return name
    return wanted
