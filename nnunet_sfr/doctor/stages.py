"""which stages are complete: preprocessed cases, adapter, pseudo-labels, models, and SFR+'s rounds."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.data.datasets import PseudoLabelledDataset
from nnunet_sfr.data.preprocessed_files import list_preprocessed
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, Level, note, ok, problem, some_names
from nnunet_sfr.doctor.raw_folders import RawImages
from nnunet_sfr.labelling.summary import emptiness_of
from nnunet_sfr.paths import (
    FINAL_ADAPTER,
    FINAL_CHECKPOINT,
    FINE_TUNING_STATE,
    LABELLED_IMAGES,
    LATEST_CHECKPOINT,
    UNLABELLED_IMAGES,
    Fold,
    fold_of,
)
from nnunet_sfr.sam_stage.model import adapter_files, misfit_of, recipe_of
from nnunet_sfr.sam_stage.recipe import cases_changed_since, changed_since
from nnunet_sfr.selection import read_selection
from nnunet_sfr.trainers.methods import DEFAULT_TRAINER


def check_preprocessed(dataset: SFRDataset, raw: RawImages | None) -> list[Finding]:
    """Preprocessed cases against the raw ones.

    Args:
        dataset: planned.
        raw: None where the raw data are not on this machine.
    """
    counts, missing, foreign = [], [], []
    folders = (
        (LABELLED_IMAGES, "labelled", dataset.paths.labelled),
        (UNLABELLED_IMAGES, "unlabelled", dataset.paths.unlabelled),
    )
    for name, kind, folder in folders:
        there = set(list_preprocessed(folder))
        wanted = there if raw is None else set(raw.sets[name])
        counts.append(f"{len(there & wanted)} of {len(wanted)} {kind}")
        missing += sorted(wanted - there)
        foreign += sorted(there - wanted)
    text, remedy = ", ".join(counts), "run sfr_plan_and_preprocess"
    if foreign:
        text += f"; {len(foreign)} that are no longer in the raw data: {some_names(foreign)}"
        return [problem("preprocessed", text, f"{remedy}, which removes them", foreign)]
    if missing:
        return [note("preprocessed", text, remedy, missing)]
    return [ok("preprocessed", text)]


def check_adapter(dataset: SFRDataset, fold: Fold, round_index: int = 0) -> list[Finding]:
    """The fine-tuned SAM of a round; several axes across which patches are cut into slices have one each.

    Args:
        dataset: planned.
        fold: of the labelled cases.
        round_index: 0 for SFR, from 1 on for SFR+.

    Raises:
        UserError: its file is damaged.
    """
    again = shell_text(CommandLines.of(dataset.paths, fold).fine_tune(round_index))
    files = adapter_files(dataset, fold, FINAL_ADAPTER, round_index)
    planes = zip(dataset.planes, files, strict=True)
    return [_adapter(plane, file, again, first_of=fold if round_index == 0 else None) for plane, file in planes]


def _adapter(plane: SFRDataset, file: Path, again: str, *, first_of: Fold | None) -> Finding:
    """The SAM of one axis; ``again`` is the command that fine-tunes it, ``first_of`` the fold of one of round 0."""
    if not file.is_file():
        state = "begun, not complete" if (file.parent / FINE_TUNING_STATE).is_file() else "none yet"
        return note("adapter", state if plane.paths.plane is None else f"{state} across axis {plane.slice_axis}", again)
    misfit = misfit_of(file, plane)
    if misfit:
        return problem("adapter", f"{file}: {misfit}", f"{again} --overwrite, or restore the setting")
    try:
        recipe = dict(json.loads(recipe_of(file) or "{}"))
    except (TypeError, ValueError):
        return problem("adapter", f"{file}: does not say what it was made with", f"{again} --overwrite")
    changed = cases_changed_since(recipe, plane)
    if changed:
        text = f"{file}: learned from another image or label of {', '.join(changed)}"
        return problem("adapter", text, f"{again} --overwrite")
    if first_of is not None and (names := changed_since(plane, first_of, file)):
        return note("adapter", f"{file}: since it was made, {names} changed", f"{again} --overwrite")
    return ok("adapter", str(file))


def check_pseudo_labels(dataset: SFRDataset, folder: Path, remedy: str) -> list[Finding]:
    """A store of pseudo-labels: complete, and of the images and the grid as they are.

    Args:
        dataset: planned.
        folder: of the store.
        remedy: the command that fills it.

    Raises:
        UserError: the store is damaged, or does not fit the data.
    """
    if not PseudoLabelStore.exists(folder):
        return [note("pseudo-labels", "none yet", remedy)]
    store = PseudoLabelStore.open(folder, grid=dataset.grid)
    pool = set(list_preprocessed(dataset.paths.unlabelled))
    done = pool & set(store.identifiers())
    text = f"{len(done)} of {len(pool)} cases, by {store.made_by.label}"
    if done != pool or not pool:
        return [note("pseudo-labels", text, remedy, sorted(pool - done))]
    PseudoLabelledDataset(dataset.paths.unlabelled, store)  # checks every case, as a training does
    found = emptiness_of(store, dataset.class_names)
    if found.is_suspicious:
        look = shell_text(CommandLines.of(dataset.paths, fold_of(folder.parent)).report())
        return [note("pseudo-labels", f"{text}; {'; '.join(found.sentences())}", look)]
    return [ok("pseudo-labels", text)]


def check_models(dataset: SFRDataset, fold: Fold) -> list[Finding]:
    """What nnU-Net has trained with this plan.

    Args:
        dataset: planned.
        fold: of the labelled cases.
    """
    trained = dataset.paths.trainers(fold, (FINAL_CHECKPOINT,))
    unfinished = [name for name in dataset.paths.trainers(fold, (LATEST_CHECKPOINT,)) if name not in trained]
    findings = [ok("models", ", ".join(trained))] if trained else []
    if unfinished:
        findings.append(
            note("models", f"begun, not complete: {', '.join(unfinished)}", "nnUNetv2_train ... --c continues")
        )
    return findings or [note("models", "none yet", f"nnUNetv2_train ... -tr {DEFAULT_TRAINER}")]


def check_rounds(dataset: SFRDataset, fold: Fold) -> list[Finding]:
    """The rounds of SFR+ that have begun, one line each.

    Args:
        dataset: planned.
        fold: of the labelled cases.
    """
    begun = itertools.takewhile(partial(_has_begun, dataset, fold), itertools.count(1))
    return [_round(dataset, fold, index) for index in begun]


def _has_begun(dataset: SFRDataset, fold: Fold, index: int) -> bool:
    paths = dataset.paths
    places = (
        paths.model_pseudo_labels(fold, index),
        paths.selection(fold, index),
        *(plane.paths.sam_stage(fold, index) for plane in dataset.planes),
        paths.pseudo_labels(fold, round_index=index),
    )
    return any(place.exists() for place in places)


def _round(dataset: SFRDataset, fold: Fold, index: int) -> Finding:
    """One line for a round; the first step that is not complete says what to run next."""
    paths = dataset.paths
    label = shell_text(CommandLines.of(paths, fold).pseudo_label(index))
    parts = [
        ("model's labels", check_pseudo_labels(dataset, paths.model_pseudo_labels(fold, index), label + " -tr ..."))
    ]
    parts.append(("selection", _check_selection(dataset, fold, index)))
    parts.append(("adapter", check_adapter(dataset, fold, index)))
    parts.append(("SAM's labels", check_pseudo_labels(dataset, paths.pseudo_labels(fold, round_index=index), label)))
    text = "; ".join(f"{name}: {finding.text}" for name, findings in parts for finding in findings)
    open_ends = [finding for _, findings in parts for finding in findings if finding.level is not Level.OK]
    worst = problem if any(finding.level is Level.PROBLEM for finding in open_ends) else note
    subject = f"round {index}"
    return worst(subject, text, open_ends[0].remedy) if open_ends else ok(subject, text)


def _check_selection(dataset: SFRDataset, fold: Fold, index: int) -> list[Finding]:
    file = dataset.paths.selection(fold, index)
    if not file.is_file():
        return [note("selection", "none yet", shell_text(CommandLines.of(dataset.paths, fold).select(index)))]
    selection = read_selection(file, list_preprocessed(dataset.paths.unlabelled))
    return [ok("selection", f"{len(selection.high)} high, {len(selection.low)} low")]
