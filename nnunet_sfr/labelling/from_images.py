"""Pseudo-labels from label maps on the original grid, for ``sfr_pseudolabel --from-images``.

nnU-Net's own preprocessing brings them to the preprocessed grid, as it does with the labels of the labelled cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.cases import Case, raise_first
from nnunet_sfr.data.datasets import UnlabelledDataset, image_hash
from nnunet_sfr.data.preprocessing import check_grid
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.labelling.common import (
    EVERYTHING,
    Share,
    has_store,
    is_done,
    report_progress,
    start_store,
    summarise,
    write_case,
)
from nnunet_sfr.labelling.label_files import check_label_file, find_label_files
from nnunet_sfr.labelling.raw_cases import raw_cases
from nnunet_sfr.paths import Fold

SOURCE = "images"


def label_from_images(
    dataset: SFRDataset,
    fold: Fold,
    *,
    folder: Path,
    share: Share = EVERYTHING,
) -> PseudoLabelStore:
    """Take label maps as pseudo-labels; those that the store has already, from the same files, are kept.

    Everything is checked before anything is written.

    Args:
        dataset: planned and preprocessed.
        fold: whose training reads the store.
        folder: one label map per unlabelled case, on the grid of its original image, ``<case><file ending>``.
        share: what this call takes of the work.

    Raises:
        UserError: a fold that does not exist, no unlabelled cases or raw images, a label map that is missing or does
            not fit its image or the data set's labels, or a store of another maker.
    """
    dataset.split(fold)  # refuses a fold that no training can have
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    raw = raw_cases(dataset, cases)
    files = find_label_files(folder, cases.identifiers, dataset.dataset_json["file_ending"])
    hashes = {identifier: file_hash(file) for identifier, file in files.items()}
    made_by = {"source": SOURCE, "fold": fold, "round": 0}
    target = dataset.paths.pseudo_labels(fold)
    todo = set(cases.identifiers)
    if has_store(target) and not share.overwrite:
        store = PseudoLabelStore.create(target, grid=dataset.grid, made_by=made_by)
        todo = {case for case in todo if not is_done(store, cases, case, label_sha256=hashes[case])}
    _check_all({case: files[case] for case in sorted(todo)}, raw, cases, dataset)

    store = start_store(dataset, target, made_by, share=share)
    mine = share.of(cases.identifiers)
    todo_here = [identifier for identifier in mine if identifier in todo]
    report_progress(mine, todo_here)
    for identifier in tqdm(todo_here, desc="Preprocessing label maps"):
        labels = _preprocess(files[identifier], raw[identifier], cases, dataset)
        confidence = no_confidence(torch.from_numpy(np.maximum(labels, 0)), num_classes=dataset.num_classes)
        write_case(store, identifier, labels, {**confidence, **_made_from(cases, identifier, hashes)}, dataset)
    summarise(store, mine)
    return store


def _made_from(cases: UnlabelledDataset, identifier: str, hashes: dict[str, str]) -> dict[str, Any]:
    _, _, _, properties = cases.load_case(identifier)
    return {"input": image_hash(properties), "label_sha256": hashes[identifier]}


def _check_all(files: dict[str, Path], raw: dict[str, Case], cases: UnlabelledDataset, dataset: SFRDataset) -> None:
    problems = []
    for identifier, file in tqdm(files.items(), desc="Checking label maps"):
        image, _, _, properties = cases.load_case(identifier)
        check_grid(properties, image.shape, dataset.plans_manager, dataset.configuration_manager, identifier)
        try:
            check_label_file(file, raw[identifier], properties, dataset)
        except UserError as problem:
            problems.append(str(problem))
    raise_first(problems)


def _preprocess(file: Path, case: Case, cases: UnlabelledDataset, dataset: SFRDataset) -> np.ndarray:
    """The label map (1, D, H, W) on the preprocessed grid, -1 outside the image's non-zero mask."""
    configuration = dataset.configuration_manager
    labels: np.ndarray
    _, labels, _ = configuration.preprocessor_class(verbose=False).run_case(
        [str(image) for image in case.images], str(file), dataset.plans_manager, configuration, dataset.dataset_json
    )
    image, _, _, _ = cases.load_case(case.identifier)
    if labels.shape[1:] != image.shape[1:]:
        raise UserError(
            f"{file}: preprocessed to {labels.shape[1:]}, where the image of case {case.identifier} has "
            f"{image.shape[1:]}; run sfr_plan_and_preprocess again"
        )
    return labels
