"""Pseudo-labels from label maps on the original grid, for ``sfr_pseudolabel --from-images``.

nnU-Net's own preprocessing brings them to the preprocessed grid, as it does with the labels of the labelled cases.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.raw_cases import RawCase, raise_first
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.labelling.case_labels import CaseLabels, LoadedCase
from nnunet_sfr.labelling.filling import (
    ALL_CASES,
    CasePartition,
    missing_cases,
    print_progress,
    started_store,
    write_case,
)
from nnunet_sfr.labelling.label_files import check_label_file, find_label_files
from nnunet_sfr.labelling.raw_files import raw_files
from nnunet_sfr.labelling.summary import print_confidence
from nnunet_sfr.paths import Fold


def label_from_images(
    dataset: SFRDataset,
    fold: Fold,
    *,
    folder: Path,
    partition: CasePartition = ALL_CASES,
) -> PseudoLabelStore:
    """Take label maps as pseudo-labels; those that the store has already, from the same files, are kept.

    Everything is checked before anything is written.

    Args:
        dataset: planned and preprocessed.
        fold: whose training reads the store.
        folder: one label map per unlabelled case, on the grid of its original image, ``<case><file ending>``.
        partition: what this call takes of the work.

    Raises:
        UserError: a fold that does not exist, no unlabelled cases or raw images, a label map that is missing or does
            not fit its image or the data set's labels, or a store of another maker.
    """
    dataset.split(fold)  # refuses a fold that no training can have
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    raw = raw_files(dataset, cases)
    files = find_label_files(folder, cases.identifiers, dataset.dataset_json["file_ending"])
    made_from = {identifier: {"label_sha256": file_hash(file)} for identifier, file in files.items()}
    made_by = Provenance.of_images(fold=fold)
    target = dataset.paths.pseudo_labels(fold)
    todo = list(cases.identifiers)
    if PseudoLabelStore.exists(target) and not partition.overwrite:
        store = PseudoLabelStore.create(target, grid=dataset.grid, made_by=made_by)
        todo = missing_cases(store, cases, todo, made_from)
    _check_all({case: files[case] for case in sorted(todo)}, raw, cases, dataset)

    mine = partition.of(cases.identifiers)
    with started_store(dataset, target, made_by, partition=partition) as store:
        todo_here = missing_cases(store, cases, mine, made_from)
        print_progress(mine, todo_here)
        for identifier in tqdm(todo_here, desc="Preprocessing label maps"):
            case = LoadedCase.open(identifier, cases, dataset)
            labels = _preprocess(files[identifier], raw[identifier], case, dataset)
            record = no_confidence(torch.from_numpy(np.maximum(labels, 0)), num_classes=dataset.num_classes)
            record |= {"input": image_hash(case.properties), **made_from[identifier]}
            write_case(store, identifier, CaseLabels(labels, record), dataset)
    store = PseudoLabelStore.open(target, grid=dataset.grid)
    print_confidence(store, mine)
    return store


def _check_all(files: dict[str, Path], raw: dict[str, RawCase], cases: UnlabelledDataset, dataset: SFRDataset) -> None:
    problems = []
    for identifier, file in tqdm(files.items(), desc="Checking label maps"):
        case = LoadedCase.open(identifier, cases, dataset)
        try:
            check_label_file(file, raw[identifier], case.properties, dataset)
        except UserError as problem:
            problems.append(str(problem))
    raise_first(problems)


def _preprocess(file: Path, raw: RawCase, case: LoadedCase, dataset: SFRDataset) -> np.ndarray:
    """The label map (1, D, H, W) on the preprocessed grid, -1 outside the image's non-zero mask."""
    configuration = dataset.configuration_manager
    labels: np.ndarray
    _, labels, _ = configuration.preprocessor_class(verbose=False).run_case(
        [str(image) for image in raw.images], str(file), dataset.plans_manager, configuration, dataset.dataset_json
    )
    if labels.shape[1:] != case.image.shape[1:]:
        raise UserError(
            f"{file}: preprocessed to {labels.shape[1:]}, where the image of case {case.identifier} has "
            f"{case.image.shape[1:]}; run sfr_plan_and_preprocess again"
        )
    return labels
