"""Everything that the report shows of one data set, plan, configuration and fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.ct_windows import HounsfieldWindow
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_files import list_preprocessed
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.labelling.emptiness import find_emptiness
from nnunet_sfr.paths import FINAL_CHECKPOINT, Fold
from nnunet_sfr.report import annotation, volumes
from nnunet_sfr.report.annotation import Candidate, RankedCase, rank_cases
from nnunet_sfr.report.colours import label_classes, rgb
from nnunet_sfr.report.contents import Alert, Contents, ReportCase, ReportWindow, SourceResult, Training
from nnunet_sfr.report.crosscheck import read_found, show_crosscheck
from nnunet_sfr.report.curves import read_trainings
from nnunet_sfr.report.label_sources import LabelSource, Pool, read_pool
from nnunet_sfr.report.orientation import find_orientation
from nnunet_sfr.report.picture_cache import CasePictures, CaseToDraw, PictureCache, PictureRequest
from nnunet_sfr.report.tables import rounds_table, settings_mark, settings_tables, versions_table
from nnunet_sfr.report.windows import GreyWindow, choose_windows
from nnunet_sfr.sam_stage.recipe import changed_since_fine_tuning
from nnunet_sfr.wording import times


@dataclass(frozen=True)
class ReportOptions:
    """What a user can choose.

    Args:
        trainers: whose curves are shown; None for all.
        all_sources: whether every source gets pictures, and not the first and the latest ones alone.
        max_pictures: cases with pictures, those of least confidence; None for all.
        annotate: length of the list of cases to annotate next.
        processes: that draw.
        window: lowest and highest HU in which CT is shown first; None for the window around the labelled foreground.
    """

    trainers: Sequence[str] | None = None
    all_sources: bool = False
    max_pictures: int | None = None
    annotate: int = 20
    processes: int = 1
    window: HounsfieldWindow | None = None


@dataclass(frozen=True)
class Gathered:
    """What the page shows, and what else is to be done for it.

    Args:
        contents: of the page.
        choices: cases to annotate next.
        cache: of the pictures.
    """

    contents: Contents
    choices: Sequence[RankedCase]
    cache: PictureCache


def gather(dataset: SFRDataset, fold: Fold, folder: Path, options: ReportOptions) -> Gathered:
    """Read everything, and draw the pictures that are not there yet.

    Args:
        dataset: planned, preprocessed, and with pseudo-labels.
        fold: whose labels and models.
        folder: of the page; pictures go there.
        options: of the user.

    Raises:
        UserError: there are no unlabelled cases or no pseudo-labels, a trainer has no model, or a file is damaged.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    properties = {case: cases.load_case(case)[3] for case in sorted(cases.identifiers)}
    pool = read_pool(dataset, fold, properties)
    trainings, missing_curves = read_trainings(dataset, fold, options.trainers)
    found = read_found(dataset)
    classes = label_classes(dataset)
    spacings = {case: volumes.grid_spacing(dataset, properties[case]) for case in properties}
    results = _results(pool, spacings)
    judge = pool.latest(sam=False) or pool.sources[-1]

    windows = choose_windows(dataset, options.window)
    colours = {one.value: rgb(one.colour) for one in classes}
    cache = PictureCache(dataset, folder, colours, windows, pool)
    to_draw = [_case_to_draw(dataset, case, properties[case], spacings[case], pool, results) for case in properties]
    pictures = cache.draw(to_draw, _request(pool, judge, results, options), options.processes)

    names = {str(one.value): one.name for one in classes}
    candidates = [
        _candidate(case, by_key[judge.key], pictures[case]) for case, by_key in results.items() if judge.key in by_key
    ]
    choices = rank_cases(candidates, options.annotate, names, judge.made_by.label if len(pool.sources) > 1 else "")
    crosscheck, crosscheck_problems = (
        (None, []) if found is None else show_crosscheck(found, dataset, folder, colours, windows)
    )
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    contents = Contents(
        dataset=dataset.paths.dataset_name,
        configuration=dataset.paths.configuration,
        plans=dataset.paths.plans_name,
        fold=str(fold),
        created=created,
        facts=_facts(dataset, pool, judge, windows, len(properties), options),
        classes=classes,
        sources=[source.show() for source in pool.sources],
        cases=_cases(pool, results, pictures, choices),
        trainings=trainings,
        rounds=rounds_table(pool, results, classes),
        crosscheck=crosscheck,
        settings=settings_tables(dataset),
        settings_mark=settings_mark(dataset),
        versions=versions_table(pool.sources, created),
        missing=[*pool.problems, *crosscheck_problems, *missing_curves, *_missing(dataset, fold, pool, trainings)],
        windows=[ReportWindow(window.key, window.name) for window in windows],
        alerts=_alerts(dataset, fold, pool),
    )
    return Gathered(contents, choices, cache)


def _results(pool: Pool, spacings: Mapping[str, tuple[float, float, float]]) -> dict[str, dict[str, SourceResult]]:
    """What every source found in every case, without pictures: by case and key of the source."""
    results: dict[str, dict[str, SourceResult]] = {case: {} for case in spacings}
    for source in pool.sources:
        by_case = {case: volumes.volumes_ml(source.voxels(case), spacings[case]) for case in source.records}
        outliers = volumes.find_outliers(by_case)
        for case, by_label in by_case.items():
            results[case][source.key] = SourceResult(source.confidence(case), by_label, outliers[case])
    return results


def _case_to_draw(
    dataset: SFRDataset,
    case: str,
    properties: Mapping[str, Any],
    spacing: tuple[float, float, float],
    pool: Pool,
    results: Mapping[str, Mapping[str, SourceResult]],
) -> CaseToDraw:
    sources = [source for source in pool.sources if source.key in results[case]]
    # one point for all sources, so that their pictures can be compared
    found = [source for source in sources if any(results[case][source.key].volumes_ml.values())]
    return CaseToDraw(
        case,
        spacing,
        find_orientation(properties, dataset.plans_manager.transpose_forward),
        sources,
        centre_of=found[-1] if found else None,
    )


def _request(
    pool: Pool, judge: LabelSource, results: Mapping[str, Mapping[str, SourceResult]], options: ReportOptions
) -> PictureRequest:
    drawn = [pool.sources[0], pool.sources[-1], pool.latest(sam=True), pool.latest(sam=False)]
    if options.all_sources:
        drawn = list(pool.sources)
    by_confidence = sorted(results, key=lambda case: (_confidence(results[case].get(judge.key)), case))
    return PictureRequest(
        cases=frozenset(by_confidence[: options.max_pictures]),
        sources=frozenset(source.key for source in drawn if source is not None),
        mosaics={source.key: _examples(source.key, results) for source in pool.sources if source.made_by.is_sam},
    )


def _confidence(result: SourceResult | None) -> float:
    """For sorting: nothing found comes first, not labelled last."""
    if result is None:
        return np.inf
    return -np.inf if result.confidence is None else result.confidence


def _examples(key: str, results: Mapping[str, Mapping[str, SourceResult]]) -> frozenset[str]:
    """The cases of lowest, median and highest confidence."""
    known = sorted(
        (result.confidence, case)
        for case, by_key in results.items()
        if (result := by_key.get(key)) is not None and result.confidence is not None
    )
    places = {0, (len(known) - 1) // 2, len(known) - 1} if known else set()
    return frozenset(known[place][1] for place in places)


def _candidate(case: str, result: SourceResult, pictures: CasePictures) -> Candidate:
    return Candidate(
        case,
        result.confidence,
        pictures.measurements.disagreement,
        result.volumes_ml,
        result.outliers,
        pictures.measurements.thumbnail,
    )


def _cases(
    pool: Pool,
    results: Mapping[str, Mapping[str, SourceResult]],
    pictures: Mapping[str, CasePictures],
    choices: Sequence[RankedCase],
) -> list[ReportCase]:
    ranks = {choice.case: (rank, choice.reasons) for rank, choice in enumerate(choices, start=1)}
    sides: dict[str, dict[str, str]] = {case: {} for case in results}
    for index, selection in pool.selections.items():
        for side, members in (("high", selection.high), ("low", selection.low)):
            for case in members:
                sides[case][str(index)] = side
    cases = []
    for case, by_key in results.items():
        drawn = pictures[case]
        with_pictures = {
            key: replace(result, labels=drawn.labels.get(key), mosaic=drawn.mosaics.get(key))
            for key, result in by_key.items()
        }
        rank, reasons = ranks.get(case, (None, ()))
        disagreement = drawn.measurements.disagreement
        cases.append(ReportCase(case, with_pictures, sides[case], disagreement, rank, list(reasons), drawn.images))
    return cases


def _alerts(dataset: SFRDataset, fold: Fold, pool: Pool) -> list[Alert]:
    """That SAM is older than what it learned from; classes and cases in which the latest labels found nothing."""
    latest = (pool.sources[-1], pool.latest(sam=False), pool.latest(sam=True))
    alerts = _outdated_sam(dataset, fold, pool)
    for source in {one.key: one for one in latest if one is not None}.values():
        found = find_emptiness({case: source.voxels(case) for case in source.records}, dataset.class_names)
        if found.about_classes is not None:
            alerts.append(Alert(f"{source.name}: {found.about_classes}", source.key))
        if found.about_cases is not None:
            alerts.append(Alert(f"{source.name}: {found.about_cases}", source.key, found.empty_cases))
    return alerts


def _outdated_sam(dataset: SFRDataset, fold: Fold, pool: Pool) -> list[Alert]:
    of_sam = [source for source in pool.sources if source.round_index == 0 and source.made_by.is_sam]
    changed = changed_since_fine_tuning(dataset, fold) if of_sam else ""
    if not changed:
        return []
    again = shell_text(CommandLines.of(dataset.paths, fold).fine_tune())
    text = f"since SAM was fine-tuned, {changed} changed; run {again} --overwrite, and what follows it"
    return [Alert(f"{of_sam[0].name}: {text}", of_sam[0].key)]


def _facts(
    dataset: SFRDataset,
    pool: Pool,
    judge: LabelSource,
    windows: Sequence[GreyWindow],
    unlabelled: int,
    options: ReportOptions,
) -> list[tuple[str, str]]:
    labelled = len(list_preprocessed(dataset.paths.labelled))
    spacing = times(dataset.configuration_manager.spacing)
    facts = [
        ("Cases", f"{labelled} labelled, {unlabelled} unlabelled"),
        ("Spacing", f"{spacing} mm (preprocessed)"),
        ("Latest labels", pool.sources[-1].name),
        *(
            (f"Confidence of {source.name}", f"{source.measure}: {MEASURES[source.measure].meaning}")
            for source in pool.sources
        ),
        ("Volumes", "voxels of the preprocessed grid times their size"),
        ("Outliers", volumes.OUTLIER_RULE),
        (
            "Pictures",
            "axial, coronal and sagittal plane through the target's centre in the latest labels, first channel, by "
            "the nearest axes of the patient: R right, L left, A front, P back, H head, F feet (no letters where the "
            f"file does not say how the patient lies); grey is {' or '.join(window.name for window in windows)}",
        ),
        ("Annotate next", f"by {judge.name}: {annotation.RANKING_RULE}"),
    ]
    if len(dataset.configuration_manager.spacing) == 2:
        facts.append(("Single slices", f"volumes are those of a slice of {volumes.SLICE_THICKNESS:g} mm"))
    if options.max_pictures is not None and options.max_pictures < unlabelled:
        facts.append(("Cases with pictures", f"the {options.max_pictures} of least confidence"))
    return facts


def _missing(dataset: SFRDataset, fold: Fold, pool: Pool, trainings: Sequence[Training]) -> list[str]:
    """What a further command would add."""
    sentences = []
    if pool.latest(sam=False) is None:
        again = shell_text(CommandLines.of(dataset.paths, fold).pseudo_label(1))
        complete = dataset.paths.trainers(fold, [FINAL_CHECKPOINT])
        trained = [training.name for training in trainings if training.name in complete]
        trainer = trained[0] if len(trained) == 1 else "<trainer>"
        sentences.append(f"there are no labels of the re-trained model to compare with; run {again} -tr {trainer}")
    if pool.latest(sam=True) is None:
        lines = CommandLines.of(dataset.paths, fold)
        sentences.append(
            f"there are no labels of SAM; run {shell_text(lines.fine_tune())} and then "
            f"{shell_text(lines.pseudo_label())} --overwrite"
        )
    for source in pool.sources:
        if source.records and all(source.confidence(case) is None for case in source.records):
            sentences.append(f"{source.name} has no confidences: label maps come without probabilities")
    return sentences
