"""What every maker of pseudo-labels shares: the store, the loop over the cases, and what is kept of each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from tqdm import tqdm

from nnunet_sfr.confidence import confidence_record
from nnunet_sfr.data.datasets import UnlabelledDataset, image_hash
from nnunet_sfr.data.preprocessing import check_grid
from nnunet_sfr.data.pseudo_label_store import MANIFEST, PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold


class Labeller(Protocol):
    """Something that predicts whole cases on the preprocessed grid."""

    @property
    def regions(self) -> bool:
        """Whether it gives one sigmoid per region of nnU-Net's, or a softmax over label values."""

    def case_probabilities(self, identifier: str, image: Any, properties: Mapping[str, Any]) -> torch.Tensor:
        """Head probabilities of one case.

        Args:
            identifier: of the case.
            image: (channels, D, H, W), preprocessed; a blosc2 array, which is read by ``image[:]``.
            properties: of the case, as nnU-Net's preprocessing recorded them.

        Returns:
            (C, D, H, W), float32, on the CPU.
        """


def fill_store(
    dataset: SFRDataset,
    fold: Fold,
    labeller: Labeller,
    made_by: Mapping[str, Any],
    *,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
) -> PseudoLabelStore:
    """Label the unlabelled cases that the store which trainers read does not have yet, and say how it went.

    Args:
        dataset: planned and preprocessed.
        fold: whose training reads the store.
        labeller: predicts the cases.
        made_by: source, hashes and settings, for the manifest.
        num_parts: share the cases between this many calls.
        part_id: which share this call takes, from 0.
        overwrite: start the store anew.

    Raises:
        UserError: no unlabelled cases, cases of another grid, or a store of another maker.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    store = start_store(dataset, fold, made_by, num_parts=num_parts, overwrite=overwrite)
    share = cases.identifiers[part_id::num_parts]
    todo = [identifier for identifier in share if not is_done(store, cases, identifier)]
    report_progress(share, todo)
    label_pool(store, dataset, labeller, todo, progress="Pseudo-labelling")
    summarise(store, share)
    return store


def label_pool(
    store: PseudoLabelStore,
    dataset: SFRDataset,
    labeller: Labeller,
    identifiers: Sequence[str],
    *,
    progress: str | None = None,
) -> None:
    """Label the given cases that the store does not have yet; interrupted, the next call goes on where it was.

    Args:
        store: to write to.
        dataset: that the cases belong to.
        labeller: predicts them.
        identifiers: unlabelled cases, with DDP the share of this rank.
        progress: what the progress bar says; None for no bar.

    Raises:
        UserError: no unlabelled cases, or one of another grid.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    todo = [identifier for identifier in identifiers if not is_done(store, cases, identifier)]
    for identifier in tqdm(todo, desc=progress, disable=progress is None):
        image, _, _, properties = cases.load_case(identifier)
        check_grid(properties, image.shape, dataset.plans_manager, dataset.configuration_manager, identifier)
        probabilities = labeller.case_probabilities(identifier, image, properties)
        store_prediction(store, cases, identifier, probabilities, dataset, regions=labeller.regions)


def store_prediction(
    store: PseudoLabelStore,
    cases: UnlabelledDataset,
    identifier: str,
    probabilities: torch.Tensor,
    dataset: SFRDataset,
    *,
    regions: bool,
) -> None:
    """Decide on a label for every voxel and store it with its confidence.

    Args:
        store: to write to.
        cases: the unlabelled cases.
        identifier: of the case.
        probabilities: (C, D, H, W) on the preprocessed grid, after nnU-Net's non-linearity.
        dataset: gives labels and regions.
        regions: whether the heads are nnU-Net's regions (sigmoid) or label values (softmax). SAM predicts label values
            even where nnU-Net trains regions.

    Raises:
        UserError: a probability is not finite (an argmax over NaN would pass for a label).
    """
    if not torch.isfinite(probabilities).all():
        raise UserError(f"{identifier}: the prediction has numbers that are not finite; did the training diverge?")
    _, mask, _, properties = cases.load_case(identifier)
    labels = decide(probabilities, dataset.label_manager, regions=regions)
    confidence = confidence_record(probabilities, labels, num_classes=dataset.num_classes, regions=regions)
    # nnU-Net marks background outside the image's non-zero mask by -1; its masked augmentation relies on that
    stored = np.where((mask[:] < 0) & (labels.numpy()[None] == 0), -1, labels.numpy()[None])
    write_case(store, identifier, stored, {**confidence, "input": image_hash(properties)}, dataset)


def decide(probabilities: torch.Tensor, label_manager: LabelManager, *, regions: bool) -> torch.Tensor:
    """Label values (D, H, W) from head probabilities (C, D, H, W): the argmax, or nnU-Net's rule for regions."""
    if not regions:
        return probabilities.argmax(dim=0)
    labels: torch.Tensor = label_manager.convert_probabilities_to_segmentation(probabilities)
    return labels


def write_case(
    store: PseudoLabelStore, identifier: str, labels: np.ndarray, record: Mapping[str, Any], dataset: SFRDataset
) -> None:
    """Store a label map (1, D, H, W), -1 outside the non-zero mask, with its record."""
    store.write(
        identifier,
        labels,
        record,
        label_manager=dataset.label_manager,
        patch_size=dataset.configuration_manager.patch_size,
    )


def is_done(store: PseudoLabelStore, cases: UnlabelledDataset, identifier: str, **made_from: str) -> bool:
    """Whether the store has this case, made from the image as it is now.

    Args:
        store: to look into.
        cases: the unlabelled cases.
        identifier: of the case.
        made_from: what else its record must say.
    """
    if not store.has(identifier):
        return False
    _, _, _, properties = cases.load_case(identifier)
    record = store.read_confidence(identifier)
    wanted = {"input": image_hash(properties), **made_from}
    return all(record.get(key) == value for key, value in wanted.items())


def start_store(
    dataset: SFRDataset, fold: Fold, made_by: Mapping[str, Any], *, num_parts: int, overwrite: bool
) -> PseudoLabelStore:
    """The store that the trainers read, to be filled; with ``overwrite``, an earlier one is deleted.

    Raises:
        UserError: it is another maker's, or ``overwrite`` would delete what other parts are doing.
    """
    folder = dataset.paths.pseudo_labels(fold)
    if overwrite and folder.is_dir():
        if num_parts > 1:
            raise UserError(
                f"{folder}: --overwrite with -num_parts would delete other parts' work; delete the folder first"
            )
        shutil.rmtree(folder)
    return PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)


def has_store(folder: Path) -> bool:
    """Whether somebody began to fill a store in this folder."""
    return (folder / MANIFEST).is_file()


def report_progress(share: Sequence[str], todo: Sequence[str]) -> None:
    print(f"{len(share) - len(todo)} of {len(share)} cases are there already")


def summarise(store: PseudoLabelStore, identifiers: Sequence[str]) -> None:
    """Say how sure the model is, if one said so, and in which cases nothing was found."""
    records = {case: store.read_confidence(case) for case in identifiers}
    sure = [record["foreground_mean_max_probability"] for record in records.values()]
    known = [value for value in sure if value is not None]
    empty = sorted(case for case, record in records.items() if _is_empty(record))
    if known:
        print(f"mean probability over predicted foreground: {np.mean(known):.3f} (lowest {min(known):.3f})")
    if empty:
        print(f"no foreground in {len(empty)} of {len(identifiers)} cases: {', '.join(empty)}")


def _is_empty(record: Mapping[str, Any]) -> bool:
    return not any(voxels for label, voxels in record["class_voxels"].items() if label != "0")
