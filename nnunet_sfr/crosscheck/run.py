"""The whole of ``sfr_crosscheck``: every fold, and what was found."""

from __future__ import annotations

from collections import defaultdict

import torch

from nnunet_sfr.atomic import write_json
from nnunet_sfr.crosscheck.findings import LABELLED_CASES, Findings, findings_of
from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.crosscheck.left_out import label_left_out
from nnunet_sfr.crosscheck.network import schedule
from nnunet_sfr.crosscheck.sources import SAM, LeftOutCase
from nnunet_sfr.data.labels_of_sam import sam_labels_folder
from nnunet_sfr.data.preprocessed_files import image_hashes
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError


def crosscheck(
    dataset: SFRDataset, device: torch.device, *, with_nnunet: bool = False, overwrite: bool = False
) -> Findings:
    """Leave every labelled case out of the trainings once, label it and compare; interrupted, it continues.

    The embedded views of the labelled cases are those of ``sfr_finetune``, so that a frozen encoder does not run again.

    Args:
        dataset: planned and preprocessed, with at least two labelled cases.
        device: to compute on.
        with_nnunet: train plain nnU-Net for a short time on the same cases as SAM; where it has been trained already,
            it counts without being asked for.
        overwrite: fine-tune and train again.

    Raises:
        UserError: there are too few cases, or training or labelling cannot be done.
    """
    folds = with_crosscheck_folds(dataset)
    assert folds.splits is not None
    # before the trainings, in whose hours the cases may change
    cases = image_hashes(dataset.paths.labelled, sorted(case for _, left_out in folds.splits for case in left_out))
    by_fold: list[dict[str, list[LeftOutCase]]] = []
    for fold, (training, left_out) in enumerate(folds.splits):
        without = ", ".join(left_out)
        print(f"fold {fold + 1} of {len(folds.splits)}: {len(training)} cases to learn from, without {without}")
        by_fold.append(label_left_out(folds, fold, device, with_nnunet=with_nnunet, overwrite=overwrite))
    found: dict[str, list[LeftOutCase]] = defaultdict(list)
    # a network that is missing in one of the folds cannot be compared
    for source in [source for source in by_fold[0] if all(source in of_fold for of_fold in by_fold)]:
        for of_fold in by_fold:
            found[source] += of_fold[source]
    epochs, steps = schedule(dataset.settings.crosscheck.nnunet_iterations)
    try:
        findings = findings_of(
            found,
            dataset.class_names,
            _records_of_unlabelled(dataset),
            nnunet_iterations=epochs * steps if set(found) != {SAM} else None,
        )
    except ValueError as error:
        raise UserError(f"{dataset.paths.labelled}: {error}") from None
    write_json({**findings.to_json(), LABELLED_CASES: cases}, dataset.paths.crosscheck_result)
    return findings


def _records_of_unlabelled(dataset: SFRDataset) -> list[dict[str, object]]:
    """Of SAM's labels, as far as they are there."""
    folder = sam_labels_folder(dataset.paths, dataset.grid)
    if folder is None:
        return []
    store = PseudoLabelStore.open(folder, grid=dataset.grid)
    return [store.read_confidence(case) for case in store.identifiers()]
