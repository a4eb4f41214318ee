"""SFR+'s choice: the unlabelled cases that a model is sure of, and those that it is not.

The cases of high confidence train SAM (with the re-trained model's labels), those of low confidence get SAM's new
labels and train the model (docs/method.md, section 5). The choice of one round is one JSON file,
:meth:`nnunet_sfr.paths.SFRPaths.selection`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.confidence_measures import MEASURES, PAPER, PAPER_MEASURE, PAPER_THRESHOLD, nothing_found
from nnunet_sfr.data.preprocessed_files import unlabelled_identifiers
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import Fold


@dataclass(frozen=True)
class Selection:
    """Which cases train which network in one round.

    Args:
        high: identifiers of high confidence, sorted.
        low: the other cases of the pool, sorted.
        rule: how they were told apart: :class:`Rule` as a dictionary, and the threshold that it came to.
        values: the measure by identifier; None where there is none.
        overruled: identifiers that the user placed, by where they are now (``high`` or ``low``).
        model: who made the labels of the high cases: ``made_by`` of the model's store.
    """

    high: tuple[str, ...]
    low: tuple[str, ...]
    rule: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float | None] = field(default_factory=dict)
    overruled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, store: PseudoLabelStore) -> bool:
        """Whether a store still has the labels that the cases were chosen by: what made them is the same."""
        return dict(self.model) == store.made_by.to_json()

    def save(self, file: Path) -> None:
        write_json({**asdict(self), "nnunet_sfr_version": __version__}, file)


@dataclass(frozen=True)
class Rule:
    """How high is told from low.

    Args:
        confidence: a name in :data:`nnunet_sfr.confidence_measures.MEASURES`.
        confidence_of: ``model`` or ``sam``.
        threshold: cases with at least this value are high; None for ``high_fraction``.
        high_fraction: share of the cases that is high; those without a value never are.
    """

    confidence: str
    confidence_of: str
    threshold: float | None
    high_fraction: float

    def find_threshold(self, values: Mapping[str, float | None]) -> float:
        """The least value of a high case, as given or as the share demands it; infinity if no case can be high."""
        if self.threshold is not None:
            return self.threshold
        known = sorted((value for value in values.values() if value is not None), reverse=True)
        count = min(round(self.high_fraction * len(values)), len(known))
        return known[count - 1] if count else math.inf


def make_rule(
    dataset: SFRDataset,
    *,
    confidence: str | None = None,
    confidence_of: str | None = None,
    threshold: float | None = None,
    high_fraction: float | None = None,
) -> Rule:
    """The rule of the SFR plan, with what the user asks for instead.

    Args:
        dataset: with the SFR plan's section ``rounds``.
        confidence: a measure, or ``paper`` for eq. 8 with the paper's threshold.
        confidence_of: ``model`` or ``sam``.
        threshold: cases with at least this value are high.
        high_fraction: share of the cases that is high.
    """
    settings = dataset.settings.rounds
    asked = confidence or settings.confidence
    chosen = threshold
    if threshold is None and high_fraction is None:
        # the plan's threshold belongs to the plan's measure
        chosen = settings.threshold if asked == settings.confidence else None
        chosen = PAPER_THRESHOLD if asked == PAPER else chosen
    return Rule(
        confidence=PAPER_MEASURE if asked == PAPER else asked,
        confidence_of=confidence_of or settings.confidence_of,
        threshold=chosen,
        high_fraction=settings.high_fraction if high_fraction is None else high_fraction,
    )


def select(
    dataset: SFRDataset,
    fold: Fold,
    round_index: int,
    rule: Rule,
    *,
    overrule_high: Sequence[str] = (),
    overrule_low: Sequence[str] = (),
) -> Selection:
    """Divide the pool for one round and store the choice.

    Args:
        dataset: planned, preprocessed, and with the model's labels of the pool.
        fold: whose rounds.
        round_index: from 1.
        rule: how high is told from low.
        overrule_high: identifiers that are high whatever the rule says.
        overrule_low: identifiers that are low whatever the rule says.

    Raises:
        UserError: labels are missing, the records do not have the measure, or an overruled identifier is unknown or
            named twice.
    """
    paths = dataset.paths
    pool = unlabelled_identifiers(paths.unlabelled)
    folder = paths.model_pseudo_labels(fold, round_index)
    if not PseudoLabelStore.exists(folder):
        raise UserError(
            f"{folder}: there are no pseudo-labels of the re-trained model; run sfr_pseudolabel --round {round_index} "
            "-tr <trainer of the round before> first"
        )
    model = PseudoLabelStore.open(folder, grid=dataset.grid)
    judge = model
    if rule.confidence_of == "sam":
        judge = PseudoLabelStore.open(paths.pseudo_labels(fold, round_index=round_index - 1), grid=dataset.grid)
    for store in (model, judge):
        _require_complete(store, pool)
    records = {case: model.read_confidence(case) for case in pool}
    judged = records if judge is model else {case: judge.read_confidence(case) for case in pool}
    values = MEASURES[rule.confidence].values(judged)
    values = {case: None if nothing_found(records[case]) else values[case] for case in pool}
    _require_values(values, rule, judge)
    _check_overruling(overrule_high, overrule_low, pool)
    threshold = rule.find_threshold(values)
    high = {case for case, value in values.items() if value is not None and value >= threshold}
    high = (high | set(overrule_high)) - set(overrule_low)
    selection = Selection(
        high=tuple(sorted(high)),
        low=tuple(sorted(set(pool) - high)),
        rule={**asdict(rule), "value_of_least_sure_high_case": None if math.isinf(threshold) else threshold},
        values=values,
        overruled={"high": sorted(overrule_high), "low": sorted(overrule_low)},
        model=model.made_by.to_json(),
    )
    selection.save(paths.selection(fold, round_index))
    return selection


def _require_complete(store: PseudoLabelStore, pool: Sequence[str]) -> None:
    missing = sorted(set(pool) - set(store.identifiers()))
    if missing:
        raise UserError(
            f"{store.folder}: no label for {missing[0]} ({len(missing)} of {len(pool)} cases are missing); run the "
            "sfr_pseudolabel that fills it again"
        )


def _require_values(values: Mapping[str, float | None], rule: Rule, judge: PseudoLabelStore) -> None:
    """A measure that no case has cannot tell them apart."""
    if any(value is not None for value in values.values()):
        return
    remedy = "choose another --confidence"
    needed = MEASURES[rule.confidence].entries
    if rule.confidence_of == "sam" and "sam_agreement" in needed:
        remedy += " (SAM is not compared with itself), flip_agreement for example"
    elif "flip_agreement" in needed:
        remedy += ", or set pseudo_labels.measure_flip_agreement in the SFR plan and run sfr_pseudolabel --overwrite"
    raise UserError(f"{judge.folder}: no case has a {rule.confidence}; {remedy}")


def _check_overruling(high: Sequence[str], low: Sequence[str], pool: Sequence[str]) -> None:
    for case in (*high, *low):
        if case not in pool:
            raise UserError(f"{case}: is to be overruled, but is no unlabelled case")
    twice = sorted(set(high) & set(low))
    if twice:
        raise UserError(f"{twice[0]}: is to be high and low at once; name it in one file")


def read_identifiers(file: Path) -> list[str]:
    """Identifiers from a text file, one a line; what follows a # is a remark.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give a text file with one identifier a line") from None
    return [identifier for line in lines if (identifier := line.split("#")[0].strip())]


def read_selection(file: Path, pool: Sequence[str]) -> Selection:
    """Read the choice of a round.

    Args:
        file: :meth:`nnunet_sfr.paths.SFRPaths.selection`.
        pool: identifiers of all unlabelled cases.

    Raises:
        UserError: there is none, it is damaged, or it does not divide these cases.
    """
    remedy = "run sfr_select for this round"
    shape = {"high": [str], "low": [str], "values?": {...: float | None}, "rule?": {}, "overruled?": {...: [str]}}
    content = read_json(file, remedy, shape)
    content.pop("nnunet_sfr_version", None)
    try:
        high, low = tuple(content.pop("high")), tuple(content.pop("low"))
        selection = Selection(high, low, **content)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: is not a selection ({error}); {remedy}") from None
    if sorted([*high, *low]) != sorted(pool):
        odd = sorted(set(pool).symmetric_difference([*high, *low])) or sorted(set(high) & set(low))
        raise UserError(f"{file}: does not divide the unlabelled cases ({odd[0]}); {remedy}")
    return selection
