"""Corrected label maps become labels: raw data, preprocessed cases, splits, pseudo-labels and selections follow.

Everything is checked before anything changes; then what is to be done is written down
(:mod:`nnunet_sfr.label_journal`), and every step of it can be repeated, so that a call that was killed is completed by
the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_sfr.corrections import derived_data, planned
from nnunet_sfr.corrections.label_maps import check_label_maps, find_label_maps
from nnunet_sfr.corrections.outdated import commands_to_repeat
from nnunet_sfr.corrections.raw_data import move_raw_files, unwritable, update_dataset_json, with_labelled
from nnunet_sfr.data.raw_cases import RawDataset, list_cases
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.label_journal import Journal, read_journal, remove_remains, stage
from nnunet_sfr.locking import locked, planning_locked
from nnunet_sfr.paths import LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES, DatasetPaths, resolve_dataset_name
from nnunet_sfr.planning.fingerprint import record_added_labels


def add_labels(
    dataset_name_or_id: str | int, folder: Path, *, typed: str, plans: str | None = None, processes: int = 1
) -> None:
    """Take the label maps in a folder as labels of the unlabelled cases that they are named after.

    Args:
        dataset_name_or_id: nnU-Net's name or number.
        folder: of label maps, ``<case><file ending>``.
        typed: the command as the user gave it, for others who find the data set locked.
        plans: the plans whose commands are shown in the end; None for all.
        processes: processes that read and preprocess.

    Raises:
        UserError: anything in the label maps or the data set that the user can fix, a full disk too; or an sfr_run
            or sfr_plan_and_preprocess is at work on the data set.
    """
    name = resolve_dataset_name(dataset_name_or_id)
    raw_folder = DatasetPaths(name).raw
    with file_errors_explained():
        completed = _complete_earlier_call(raw_folder, typed, processes)
        datasets = _shown(planned.planned_configurations(name), plans, name)
        taken = _add(raw_folder, folder, typed, processes)
    for line in commands_to_repeat(datasets) if completed or taken else ():
        print(line)


def _complete_earlier_call(raw: Path, typed: str, processes: int) -> bool:
    """Complete what was stopped; returns whether there was anything."""
    if read_journal(raw) is None:
        return False
    with _alone(DatasetPaths(raw.name), typed):
        journal = read_journal(raw)
        if journal is not None:
            print("an earlier sfr_add_labels was stopped; completing it first")
            _complete(journal, processes)
    return True


@contextlib.contextmanager
def _alone(paths: DatasetPaths, typed: str) -> Iterator[None]:
    """Hold both locks, for a change of raw and preprocessed data."""
    with locked(paths, typed), planning_locked(paths, typed):
        yield


def _add(raw_folder: Path, folder: Path, typed: str, processes: int) -> bool:
    """Check the label maps and take them; returns whether any was new."""
    raw = list_cases(raw_folder)
    maps = find_label_maps(folder, raw)
    if maps.known:
        print(f"{len(maps.known)} of {len(maps.known) + len(maps.new)} cases have this very label already")
    if not maps.new:
        return False
    # before the checks, which take a while: what they have not seen is not taken
    stamp, contents = raw.stamp(), _contents(maps.new, raw)
    _check_data_set(raw)
    check_label_maps(maps.new, raw, processes=processes)
    with _alone(DatasetPaths(raw_folder.name), typed):
        _take(maps.new, raw, stamp, contents, processes)
    return True


def _contents(maps: Mapping[str, Path], raw: RawDataset) -> dict[Path, str]:
    """Hashes of the label maps and of what belongs to them."""
    belonging = sidecars(maps.values(), raw.dataset_json["file_ending"], is_label=True)
    return {file: file_hash(file) for file in (*maps.values(), *belonging)}


def _shown(datasets: list[SFRDataset], plans: str | None, name: str) -> list[SFRDataset]:
    if plans is None:
        return datasets
    chosen = [dataset for dataset in datasets if dataset.paths.plans_name == plans]
    if not chosen:
        known = ", ".join(sorted({dataset.paths.plans_name for dataset in datasets})) or "none"
        raise UserError(f"-p {plans}: {name} has no such SFR plan; choose from {known}, or leave -p out")
    return chosen


def _check_data_set(raw: RawDataset) -> None:
    """Check what the steps will read and write besides the label maps.

    Raises:
        UserError: something of it is damaged, read-only, or of other raw data.
    """
    preprocessed = DatasetPaths(raw.folder.name).preprocessed
    folders = [raw.folder, *(raw.folder / name for name in (LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES)), preprocessed]
    for closed in unwritable(folders):
        raise UserError(f"{closed}: cannot be written to; ask its owner for the permission")
    datasets = planned.planned_configurations(raw.folder.name)
    if not datasets:
        raise UserError(
            f"{preprocessed}: has no SFR plan; move the images to {LABELLED_IMAGES} and the labels to {LABELS} by "
            "hand, since nothing depends on them yet, or run sfr_plan_and_preprocess first"
        )
    planned.require_planned_from(raw)
    for file in _splits_files(DatasetPaths(raw.folder.name)):
        derived_data.splits_if_there(file)
    derived_data.read_selections(datasets)


def _splits_files(paths: DatasetPaths) -> tuple[Path, Path]:
    """The folds beside the plan, and a user's own, which have to stay the same for another plan to be made."""
    return paths.splits_file, paths.raw_splits_file


def _take(maps: Mapping[str, Path], raw: RawDataset, stamp: str, contents: Mapping[Path, str], processes: int) -> None:
    """Decide, and do it; no other process is at work on the data set.

    Args:
        maps: label maps by identifier.
        raw: the data set as it was listed.
        stamp: of the raw data before they were checked.
        contents: hashes of the label maps, and of what belongs to them, before they were checked.
        processes: processes that preprocess.
    """
    now = list_cases(raw.folder)
    if read_journal(raw.folder) is not None or now.stamp() != stamp:
        raise UserError(f"{raw.folder}: has changed while the label maps were checked; run the same command again")
    try:
        ending = raw.dataset_json["file_ending"]
        belonging = {case: sidecars([file], ending, is_label=True) for case, file in maps.items()}
        files = [*maps.values(), *(file for files in belonging.values() for file in files)]
        copies = stage(raw.folder, files)
        _require_unchanged({file: file_hash(copies / file.name) for file in files}, contents)
        journal = _journal(raw, copies, {case: [file.name for file in files] for case, files in belonging.items()})
        journal.commit()
    finally:
        remove_remains(raw.folder)
    _complete(journal, processes)


def _require_unchanged(copied: Mapping[Path, str], checked: Mapping[Path, str]) -> None:
    """Refuse label maps that were written to while they were checked.

    Args:
        copied: hashes of what is taken, by the file that it is a copy of.
        checked: hashes from before the checks.
    """
    for file in sorted({*copied, *checked}):
        if copied.get(file) != checked.get(file):
            raise UserError(f"{file}: has changed while the label maps were checked; run the same command again")


def _journal(raw: RawDataset, copies: Path, label_sidecars: Mapping[str, Sequence[str]]) -> Journal:
    """What is to be done, and how the raw data will look then.

    Args:
        raw: the data set as it is.
        copies: folder of the staged label maps.
        label_sidecars: names of what belongs to them, by identifier.
    """
    ending = raw.dataset_json["file_ending"]
    becoming = [
        replace(
            case,
            label=copies / f"{case.identifier}{ending}",
            label_sidecars=tuple(copies / name for name in label_sidecars[case.identifier]),
        )
        for case in raw.unlabelled
        if case.identifier in label_sidecars
    ]
    images = {case.identifier: [image.name for image in case.images] for case in becoming}
    image_sidecars = {case.identifier: [file.name for file in case.sidecars] for case in becoming}
    num_training = len(raw.labelled) + len(becoming)
    after = replace(
        raw,
        dataset_json=with_labelled(raw.dataset_json, images, ending, num_training),
        labelled=(*raw.labelled, *becoming),
        unlabelled=tuple(case for case in raw.unlabelled if case.identifier not in label_sidecars),
    )
    # moved files keep name and content, so the stamp is known beforehand
    return Journal(raw.folder, images, ending, num_training, after.stamp(), image_sidecars, label_sidecars)


def _complete(journal: Journal, processes: int) -> None:
    """Every step that is not done yet, whatever has been done before."""
    paths, cases = DatasetPaths(journal.raw.name), journal.cases
    move_raw_files(journal)
    update_dataset_json(paths.raw_dataset_json, journal)
    raw = list_cases(journal.raw)
    datasets = planned.planned_configurations(journal.raw.name)  # none if somebody has deleted them since
    print(f"{', '.join(cases)}: labelled now ({len(raw.labelled)} labelled and {len(raw.unlabelled)} unlabelled cases)")
    if datasets:
        update_dataset_json(paths.dataset_json, journal)
        derived_data.update_preprocessed(datasets, raw, cases, processes=processes)
        stores = derived_data.remove_pseudo_labels(datasets, cases)
        derived_data.remove_from_selections(datasets, cases)
        print(f"taken out of {len(stores)} {'store' if len(stores) == 1 else 'stores'} of pseudo-labels")
    # those beside the plan first: they may have further cases, so that a call killed in between leaves folds that fit
    known = [derived_data.add_to_splits(file, cases) for file in _splits_files(paths)]
    if any(known):
        print(f"{paths.splits_file.name}: they are training cases of every fold")
    if datasets:
        record_added_labels(paths.fingerprint_file, cases, journal.stamp)
        raw.hashes.save()
        print(
            "the plan stays as it is: the images are the same, and its intensity statistics are those of the labels "
            "that it was made from. sfr_plan_and_preprocess, called as before, makes a new one"
        )
    journal.end()
