"""What every maker of pseudo-labels shares: the store, the loop over the cases, and what is kept of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from tqdm import tqdm

from nnunet_sfr.confidence import MEASURES, confidence_record
from nnunet_sfr.data.datasets import UnlabelledDataset, image_hash
from nnunet_sfr.data.preprocessing import check_grid
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import MANIFEST


@dataclass(frozen=True)
class Share:
    """What one call takes of the work on a store.

    Args:
        num_parts: the cases are shared between this many calls.
        part_id: which share this call takes, from 0.
        overwrite: start the store anew.
    """

    num_parts: int = 1
    part_id: int = 0
    overwrite: bool = False

    def of(self, identifiers: Sequence[str]) -> Sequence[str]:
        """The cases of this call."""
        return identifiers[self.part_id :: self.num_parts]


EVERYTHING = Share()


Others = Mapping[str, PseudoLabelStore | None]
NO_OTHERS: Others = {}


class Labeller(Protocol):
    """Something that predicts whole cases on the preprocessed grid."""

    @property
    def regions(self) -> bool:
        """Whether it gives one sigmoid per region of nnU-Net's, or a softmax over label values."""

    @property
    def average(self) -> bool:
        """Whether labels are decided by the mean over an image and its mirrored images."""

    def case_probabilities(
        self, identifier: str, image: Any, properties: Mapping[str, Any], *, mirrored: bool
    ) -> Iterator[torch.Tensor]:
        """Head probabilities of one case.

        Args:
            identifier: of the case.
            image: (channels, D, H, W), preprocessed; a blosc2 array, which is read by ``image[:]``.
            properties: of the case, as nnU-Net's preprocessing recorded them.
            mirrored: whether to go on with the mirrored image.

        Yields:
            (C, D, H, W), float32, on the CPU: of the image and, with ``mirrored``, of the image mirrored along one axis
            after the other (those that the model was trained to mirror), each mirrored back.
        """


def predict_mirrored(
    predict: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, axes: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Predict an image (channels, D, H, W) mirrored along one axis after the other (D is 1), each mirrored back."""
    for axis in axes:
        yield torch.flip(predict(torch.flip(image, (axis,))), (axis,))


def fill_store(
    dataset: SFRDataset,
    folder: Path,
    labeller: Labeller,
    made_by: Mapping[str, Any],
    *,
    share: Share = EVERYTHING,
    others: Others = NO_OTHERS,
) -> PseudoLabelStore:
    """Label the unlabelled cases that a store does not have yet, and say how it went.

    Args:
        dataset: planned and preprocessed.
        folder: of the store.
        labeller: predicts the cases.
        made_by: source, hashes and settings, for the manifest.
        share: what this call takes of the work.
        others: stores to compare with, by the entry of the record that they give.

    Raises:
        UserError: no unlabelled cases, cases of another grid, or a store of another maker.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    store = start_store(dataset, folder, made_by, share=share)
    mine = share.of(cases.identifiers)
    todo = [identifier for identifier in mine if not is_done(store, cases, identifier)]
    report_progress(mine, todo)
    mirrored = dataset.settings.pseudo_labels.measure_flip_agreement
    label_pool(store, dataset, labeller, todo, progress="Pseudo-labelling", mirrored=mirrored, others=others)
    summarise(store, mine)
    return store


def label_pool(
    store: PseudoLabelStore,
    dataset: SFRDataset,
    labeller: Labeller,
    identifiers: Sequence[str],
    *,
    progress: str | None = None,
    mirrored: bool = False,
    others: Others = NO_OTHERS,
) -> None:
    """Label the given cases that the store does not have yet; interrupted, the next call goes on where it was.

    Args:
        store: to write to.
        dataset: that the cases belong to.
        labeller: predicts them.
        identifiers: unlabelled cases, with DDP the share of this rank.
        progress: what the progress bar says; None for no bar.
        mirrored: whether to predict the mirrored images too, for the confidence.
        others: stores to compare with, by the entry of the record that they give.

    Raises:
        UserError: no unlabelled cases, or one of another grid.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    todo = [identifier for identifier in identifiers if not is_done(store, cases, identifier)]
    for identifier in tqdm(todo, desc=progress, disable=progress is None):
        image, _, _, properties = cases.load_case(identifier)
        check_grid(properties, image.shape, dataset.plans_manager, dataset.configuration_manager, identifier)
        predictions = labeller.case_probabilities(identifier, image, properties, mirrored=mirrored)
        store_prediction(
            store,
            cases,
            identifier,
            predictions,
            dataset,
            regions=labeller.regions,
            average=labeller.average,
            others=others,
        )


def store_prediction(
    store: PseudoLabelStore,
    cases: UnlabelledDataset,
    identifier: str,
    predictions: Iterator[torch.Tensor],
    dataset: SFRDataset,
    *,
    regions: bool,
    average: bool = False,
    others: Others = NO_OTHERS,
) -> None:
    """Decide on a label for every voxel and store it with its confidence.

    Args:
        store: to write to.
        cases: the unlabelled cases.
        identifier: of the case.
        predictions: probabilities (C, D, H, W) on the preprocessed grid, after nnU-Net's non-linearity: those to
            decide by, then those of mirrored images.
        dataset: gives labels and regions.
        regions: whether the heads are nnU-Net's regions (sigmoid) or label values (softmax). SAM predicts label values
            even where nnU-Net trains regions.
        average: decide by the mean of all predictions, and not by the first alone.
        others: stores to compare with, by the entry of the record that they give.

    Raises:
        UserError: a probability is not finite (an argmax over NaN would pass for a label).
    """
    probabilities, single = _combine(identifier, predictions, dataset.label_manager, regions=regions, average=average)
    _, mask, _, properties = cases.load_case(identifier)
    labels = decide(probabilities, dataset.label_manager, regions=regions)
    confidence = confidence_record(
        probabilities,
        labels,
        num_classes=dataset.num_classes,
        regions=regions,
        mirrored=single,
        others={entry: _labels_in(other, identifier) for entry, other in others.items()},
    )
    # nnU-Net marks background outside the image's non-zero mask by -1; its masked augmentation relies on that
    stored = np.where((mask[:] < 0) & (labels.numpy()[None] == 0), -1, labels.numpy()[None])
    write_case(store, identifier, stored, {**confidence, "input": image_hash(properties)}, dataset)


def _combine(
    identifier: str,
    predictions: Iterator[torch.Tensor],
    label_manager: LabelManager,
    *,
    regions: bool,
    average: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The probabilities (C, D, H, W) to decide by, and the label maps (D, H, W) of single predictions to compare with.

    Predictions are added up one by one, so that memory does not depend on their number.
    """
    total = _finite(identifier, next(predictions))
    single = [decide(total, label_manager, regions=regions)] if average else []
    count = 1
    for prediction in predictions:
        single.append(decide(_finite(identifier, prediction), label_manager, regions=regions))
        if average:
            # not in place: predictions come from inference mode
            total = total + prediction
            count += 1
    return (total / count if count > 1 else total), single if count > 1 or not average else []


def _labels_in(store: PseudoLabelStore | None, identifier: str) -> torch.Tensor | None:
    """Label map (D, H, W) of a case, if there is a store and it has the case."""
    if store is None or not store.has(identifier):
        return None
    return torch.from_numpy(store.read_labels(identifier)[0])


def _finite(identifier: str, probabilities: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(probabilities).all():
        raise UserError(f"{identifier}: the prediction has numbers that are not finite; did the training diverge?")
    return probabilities


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


def start_store(dataset: SFRDataset, folder: Path, made_by: Mapping[str, Any], *, share: Share) -> PseudoLabelStore:
    """A store to be filled; with ``share.overwrite``, an earlier one is deleted.

    Raises:
        UserError: it is another maker's, or ``overwrite`` would delete what other parts are doing.
    """
    if share.overwrite and folder.is_dir():
        if share.num_parts > 1:
            raise UserError(
                f"{folder}: --overwrite with -num_parts would delete other parts' work; delete the folder first"
            )
        shutil.rmtree(folder)
    return PseudoLabelStore.create(folder, grid=dataset.grid, made_by=made_by)


def open_if_there(folder: Path, dataset: SFRDataset) -> PseudoLabelStore | None:
    """The store in this folder, if somebody began to fill one."""
    return PseudoLabelStore.open(folder, grid=dataset.grid) if has_store(folder) else None


def has_store(folder: Path) -> bool:
    """Whether somebody began to fill a store in this folder."""
    return (folder / MANIFEST).is_file()


def report_progress(share: Sequence[str], todo: Sequence[str]) -> None:
    print(f"{len(share) - len(todo)} of {len(share)} cases are there already")


def summarise(store: PseudoLabelStore, identifiers: Sequence[str]) -> None:
    """Say how sure the model is, if one said so, and in which cases nothing was found."""
    records = {case: store.read_confidence(case) for case in identifiers}
    empty = sorted(case for case, record in records.items() if _is_empty(record))
    for name in ("flip_agreement", "foreground_mean_max_probability"):
        known = [value for value in map(MEASURES[name].value, records.values()) if value is not None]
        if known:
            print(f"{MEASURES[name].meaning}: {np.mean(known):.3f} (lowest {min(known):.3f})")
    if empty:
        print(f"no foreground in {len(empty)} of {len(identifiers)} cases: {', '.join(empty)}")


def _is_empty(record: Mapping[str, Any]) -> bool:
    return not any(voxels for label, voxels in record["class_voxels"].items() if label != "0")
