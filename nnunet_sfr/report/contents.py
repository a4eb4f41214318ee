"""What the report shows: plain values, between those who gather them and the page that shows them.

Everything here is ready to be shown, in the unit that its name or title gives, and becomes the JSON inside the page by
:func:`dataclasses.asdict`. Pictures are paths relative to the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LabelClass:
    """A foreground class.

    Args:
        value: label value.
        name: as in dataset.json.
        colour: ``#rrggbb``, the same in pictures and charts.
    """

    value: int
    name: str
    colour: str


@dataclass(frozen=True)
class ReportWindow:
    """Which grey values the pictures tell apart.

    Args:
        key: short and unique.
        name: for people: ``soft tissue (-160 to 240 HU)``.
    """

    key: str
    name: str


@dataclass(frozen=True)
class ReportSource:
    """Who made a set of label maps.

    Args:
        key: short and unique, the name of the store's folder, ``round_0`` for example.
        name: for people: ``SAM, round 0``.
        measure: which confidence the cases have here, as :data:`nnunet_sfr.confidence_measures.MEASURES` names it.
        threshold: from which on a case counts as high; None where no choice was made by this source.
    """

    key: str
    name: str
    measure: str
    threshold: float | None = None


@dataclass(frozen=True)
class MosaicPictures:
    """The stitched image that SAM sees, in grey, and the labels to lay over it (a transparent picture)."""

    image: str
    labels: str


@dataclass(frozen=True)
class SourceResult:
    """One case as one source sees it.

    Args:
        confidence: in [0, 1]; None where there is none (nothing was found).
        volumes_ml: volume in millilitres by label value as text.
        outliers: label values (as text) whose volume is far from that of the other cases.
        labels: transparent picture of this source's labels, to lay over :attr:`ReportCase.images`; None if not drawn.
        mosaic: the stitched image with this source's labels; None if not drawn.
    """

    confidence: float | None
    volumes_ml: Mapping[str, float]
    outliers: Sequence[str] = ()
    labels: str | None = None
    mosaic: MosaicPictures | None = None


@dataclass(frozen=True)
class ReportCase:
    """One unlabelled case.

    Args:
        name: identifier.
        results: by :attr:`ReportSource.key`; a source that has not labelled it is missing.
        sides: ``high`` or ``low`` by number of the round (as text).
        disagreement: 1 - Dice between SAM's and the re-trained model's latest labels, mean over classes; None
            without both.
        annotation_rank: 1 for the case most worth annotating next.
        annotation_reasons: why, in a few words each.
        images: three planes through the target's centre in grey, by :attr:`ReportWindow.key`; empty if not drawn.
    """

    name: str
    results: Mapping[str, SourceResult]
    sides: Mapping[str, str] = field(default_factory=dict)
    disagreement: float | None = None
    annotation_rank: int | None = None
    annotation_reasons: Sequence[str] = ()
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One line of a chart: ``x`` and ``y`` are of equal length; NaN never occurs."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class CurvePanel:
    """Curves that share a vertical axis."""

    title: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Training:
    """The curves of one training (a re-training, or SAM's fine-tuning in one round).

    Args:
        name: for people.
        x_label: ``epoch`` or ``iteration``.
        panels: one for each loss term.
    """

    name: str
    x_label: str
    panels: Sequence[CurvePanel]


@dataclass(frozen=True)
class Table:
    """Cells as text, with a heading for each column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class LeftOutSource:
    """Who labelled the cases that the cross-check left out.

    Args:
        key: short and unique.
        name: for people: ``truth``, ``SAM``.
    """

    key: str
    name: str


@dataclass(frozen=True)
class LeftOutResult:
    """A case that was left out as one source labelled it.

    Args:
        labels: transparent picture, to lay over :attr:`LeftOutExample.images`.
        dice: mean over the classes; None for the truth.
        classes: (name, Dice) of every class that either map has.
    """

    labels: str
    dice: float | None = None
    classes: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class LeftOutExample:
    """One case that was left out, with pictures.

    Args:
        name: identifier.
        results: by :attr:`LeftOutSource.key`.
        images: three planes through the target's centre in grey, by :attr:`ReportWindow.key`.
    """

    name: str
    results: Mapping[str, LeftOutResult]
    images: Mapping[str, str]


@dataclass(frozen=True)
class CalibrationSeries:
    """Confidence and true Dice of the cases that were left out, for the labels of one source.

    Args:
        key: of the source.
        name: of the source.
        rank_correlation: of the two; None where it does not exist.
        cases: identifiers.
        confidences: of these cases.
        dices: of these cases, mean over their classes.
    """

    key: str
    name: str
    rank_correlation: float | None
    cases: Sequence[str]
    confidences: Sequence[float]
    dices: Sequence[float]


@dataclass(frozen=True)
class Calibration:
    """One measure of confidence.

    Args:
        measure: a name in :data:`nnunet_sfr.confidence_measures.MEASURES`.
        meaning: in a few words.
        series: one for each source that has it.
    """

    measure: str
    meaning: str
    series: Sequence[CalibrationSeries]


@dataclass(frozen=True)
class CrossCheck:
    """What ``sfr_crosscheck`` found.

    Args:
        verdict: in one line.
        tables: Dice of every class; with nnU-Net, the paired differences.
        calibrations: measures of confidence against the true Dice.
        sources: who labelled the cases, the truth first.
        worst: cases of lowest Dice, the worst first.
        left_out: number of cases that were left out.
        outdated: that it is not known to be of today's labelled cases, and what to run; empty where nothing is to say.
    """

    verdict: str
    tables: Sequence[Table]
    calibrations: Sequence[Calibration]
    sources: Sequence[LeftOutSource]
    worst: Sequence[LeftOutExample]
    left_out: int
    outdated: str = ""


@dataclass(frozen=True)
class Alert:
    """What is to be looked at before anything else.

    Args:
        text: one sentence.
        source: key of the source whose labels it is about.
        cases: identifiers that it is about; empty where it is about all.
    """

    text: str
    source: str
    cases: Sequence[str] = ()


@dataclass(frozen=True)
class Contents:
    """The whole report.

    Args:
        dataset: nnU-Net's name of the data set.
        configuration: nnU-Net's configuration.
        plans: nnU-Net's plans identifier.
        fold: whose pseudo-labels and models.
        created: ISO date and time.
        facts: (what, value) for the head of the page: numbers of cases, target spacing, ...
        classes: foreground classes.
        sources: who labelled the pool, the latest last.
        cases: the unlabelled pool, in the order of the identifiers.
        trainings: curves.
        rounds: rounds of SFR+ side by side, one column a round.
        crosscheck: SAM in labelled cases that it was left without.
        settings: every section of the SFR plan, with name, value and what planning gives.
        settings_mark: what is said of a setting that is not as planned.
        versions: what made the pseudo-labels, and what made this page.
        missing: what could not be shown and which command would make it, one sentence each.
        windows: of the grey pictures, the default first.
        alerts: what stands at the top: a SAM that is older than its cases or settings, classes and cases in which
            nothing was found.
    """

    dataset: str
    configuration: str
    plans: str
    fold: str
    created: str
    facts: Sequence[tuple[str, str]]
    classes: Sequence[LabelClass]
    sources: Sequence[ReportSource]
    cases: Sequence[ReportCase]
    trainings: Sequence[Training] = ()
    rounds: Table | None = None
    crosscheck: CrossCheck | None = None
    settings: Sequence[Table] = ()
    settings_mark: str = "edited"
    versions: Table | None = None
    missing: Sequence[str] = ()
    windows: Sequence[ReportWindow] = ()
    alerts: Sequence[Alert] = ()
