"""Fills a pseudo-label store: which cases are missing, the loop over them, and how it went."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_sfr.confidence import SAM_FLIP_AGREEMENT
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.case_labels import CaseLabels, Labeller, LoadedCase, label_case
from nnunet_sfr.labelling.fusion import Fusion
from nnunet_sfr.labelling.summary import print_confidence
from nnunet_sfr.replacement import finish_replacement, new_folder, replace_folder


@dataclass(frozen=True)
class CasePartition:
    """What one call takes of the work on a store.

    Args:
        num_parts: the cases are shared between this many calls.
        part_id: which share this call takes, from 0.
        overwrite: label every case again.
    """

    num_parts: int = 1
    part_id: int = 0
    overwrite: bool = False

    def of(self, identifiers: Sequence[str]) -> Sequence[str]:
        """The cases of this call."""
        return identifiers[self.part_id :: self.num_parts]


ALL_CASES = CasePartition()


@dataclass(frozen=True)
class ReferenceStores:
    """Earlier labels of the pool to compare with; None for those that are not there.

    Args:
        previous_round: by the same model a round ago.
        first_round: of round 0, SAM's usually.
    """

    previous_round: PseudoLabelStore | None = None
    first_round: PseudoLabelStore | None = None

    def labels(self, identifier: str) -> dict[str, torch.Tensor | None]:
        """Label maps (D, H, W) of a case, by the entry of the confidence record that they give."""
        stores = {"previous_round_agreement": self.previous_round, "sam_agreement": self.first_round}
        return {entry: _labels_in(store, identifier) for entry, store in stores.items()}

    def known(self, identifier: str) -> dict[str, float | None]:
        """What the confidence record of a case takes from that of the first round."""
        record = self.first_round.find_record(identifier) if self.first_round is not None else None
        return {SAM_FLIP_AGREEMENT: (record or {}).get("flip_agreement")}


NO_REFERENCE_STORES = ReferenceStores()


def fill_store(
    dataset: SFRDataset,
    folder: Path,
    labeller: Labeller,
    made_by: Provenance,
    *,
    partition: CasePartition = ALL_CASES,
    references: ReferenceStores = NO_REFERENCE_STORES,
    fusion: Fusion | None = None,
) -> PseudoLabelStore:
    """Label the unlabelled cases that a store does not have yet, and print how it went.

    Args:
        dataset: planned and preprocessed.
        folder: of the store.
        labeller: predicts the cases.
        made_by: what makes the labels.
        partition: what this call takes of the work.
        references: stores to compare with.
        fusion: another source to mix in.

    Raises:
        UserError: no unlabelled cases, cases of another grid, or a store of another maker.
    """
    mine = partition.of(UnlabelledDataset(dataset.paths.unlabelled).identifiers)
    with started_store(dataset, folder, made_by, partition=partition) as store:
        label_pool(
            store,
            dataset,
            labeller,
            mine,
            progress="Pseudo-labelling",
            mirrored=dataset.settings.pseudo_labels.measure_flip_agreement,
            references=references,
            fusion=fusion,
        )
    store = PseudoLabelStore.open(folder, grid=dataset.grid)
    print_confidence(store, mine)
    return store


def label_pool(
    store: PseudoLabelStore,
    dataset: SFRDataset,
    labeller: Labeller,
    identifiers: Sequence[str],
    *,
    progress: str | None = None,
    mirrored: bool = False,
    references: ReferenceStores = NO_REFERENCE_STORES,
    fusion: Fusion | None = None,
    cases: UnlabelledDataset | None = None,
) -> None:
    """Label the given cases that the store does not have yet; after an interruption the next call continues.

    Args:
        store: to write to.
        dataset: that the cases belong to.
        labeller: predicts them.
        identifiers: of the cases, with DDP the share of this rank.
        progress: text of the progress bar; None to print nothing.
        mirrored: whether to predict the mirrored images too, for the confidence.
        references: stores to compare with.
        fusion: another source to mix in.
        cases: to read them from; None for the unlabelled ones.

    Raises:
        UserError: no unlabelled cases, or one of another grid.
    """
    cases = cases or UnlabelledDataset(dataset.paths.unlabelled)
    todo = missing_cases(store, cases, identifiers)
    if progress is not None:
        print_progress(identifiers, todo)
    for identifier in tqdm(todo, desc=progress, disable=progress is None):
        case = LoadedCase.open(identifier, cases, dataset)
        labels = label_case(
            case,
            labeller,
            dataset,
            mirrored=mirrored,
            references=references.labels(identifier),
            of_references=references.known(identifier),
            fusion=fusion,
        )
        write_case(store, identifier, labels, dataset)


def missing_cases(
    store: PseudoLabelStore,
    cases: UnlabelledDataset,
    identifiers: Sequence[str],
    made_from: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """The cases that a store does not have, or not from the images as they are now.

    Args:
        store: to look into.
        cases: the unlabelled cases.
        identifiers: those to ask about.
        made_from: what else the record of each of them must have, by identifier.
    """

    def is_there(identifier: str) -> bool:
        record = store.find_record(identifier)
        if record is None:
            return False
        wanted = {"input": image_hash(cases.read_properties(identifier)), **(made_from or {}).get(identifier, {})}
        return all(record.get(key) == value for key, value in wanted.items())

    return [identifier for identifier in identifiers if not is_there(identifier)]


@contextmanager
def started_store(
    dataset: SFRDataset, folder: Path, made_by: Provenance, *, partition: CasePartition
) -> Iterator[PseudoLabelStore]:
    """A store to be filled within the context.

    With ``partition.overwrite`` every case is labelled again, in a new store that takes the place of the earlier one at
    the end of the context; if that is not reached, the next such call continues the new store.

    Args:
        dataset: planned and preprocessed.
        folder: of the store.
        made_by: what makes the labels.
        partition: what this call takes of the work.

    Raises:
        UserError: it is another maker's, or ``overwrite`` would replace what other parts are doing.
    """
    finish_replacement(folder)
    if not partition.overwrite:
        yield PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)
        return
    if not PseudoLabelStore.exists(folder):
        shutil.rmtree(folder, ignore_errors=True)  # labels without a manifest
        yield PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)
        return
    if partition.num_parts > 1:
        raise UserError(
            f"{folder}: --overwrite with -num_parts would replace other parts' work; move the folder away first, and "
            "leave --overwrite out"
        )
    store = store_of_maker(dataset, new_folder(folder), made_by)
    print(f"the labels in {folder} stay until all new ones are there")
    yield store
    replace_folder(folder)


def store_of_maker(dataset: SFRDataset, folder: Path, made_by: Provenance) -> PseudoLabelStore:
    """The store that is there, if this maker made it; else an empty one in its place.

    Args:
        dataset: planned and preprocessed.
        folder: of the store.
        made_by: what makes the labels.
    """
    try:
        return PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)
    except UserError:
        shutil.rmtree(folder)
        return PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)


def write_case(store: PseudoLabelStore, identifier: str, labels: CaseLabels, dataset: SFRDataset) -> None:
    """Store the labels of a case with their record.

    Args:
        store: to write to.
        identifier: of the case.
        labels: label map and record.
        dataset: gives labels and patch size.
    """
    store.write(
        identifier,
        labels.labels,
        labels.record,
        label_manager=dataset.label_manager,
        patch_size=dataset.configuration_manager.patch_size,
        voxel_confidence=labels.voxel_confidence,
    )


def print_progress(share: Sequence[str], todo: Sequence[str]) -> None:
    """Say how many cases of a share are left to do.

    Args:
        share: the cases of this call.
        todo: those of them without labels.
    """
    print(f"{len(share) - len(todo)} of {len(share)} cases are there already")


def _labels_in(store: PseudoLabelStore | None, identifier: str) -> torch.Tensor | None:
    if store is None or not store.has(identifier):
        return None
    return torch.from_numpy(store.read_labels(identifier)[0])
