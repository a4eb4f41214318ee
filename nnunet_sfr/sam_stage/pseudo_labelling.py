"""Pseudo-labels for the unlabelled cases from the fine-tuned SAM (docs/method.md, section 3)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nnunet_sfr.confidence import confidence_record
from nnunet_sfr.data.datasets import UnlabelledDataset, image_hash
from nnunet_sfr.data.preprocessing import check_grid
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_stage.checkpoints import file_hash
from nnunet_sfr.sam_stage.model import build_stitched_sam, load_adapter
from nnunet_sfr.sam_stage.prediction import VolumePredictor

SOURCE = "sam"


def pseudo_label(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    adapter: str,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
) -> PseudoLabelStore:
    """Label the unlabelled cases that the store does not have yet.

    Args:
        dataset: planned, preprocessed, and with a fine-tuned SAM.
        fold: whose SAM.
        device: to compute on.
        adapter: file name of the adapter in the SAM stage's folder.
        num_parts: share the cases between this many calls.
        part_id: which share this call takes, from 0.
        overwrite: start the store anew.

    Raises:
        UserError: no adapter, no unlabelled cases, cases of another grid, or a store of another maker.
    """
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    adapter_file = dataset.paths.sam_stage(fold) / adapter
    model = build_stitched_sam(dataset)
    load_adapter(model, dataset, adapter_file)
    folder = dataset.paths.pseudo_labels(fold, SOURCE)
    if overwrite:
        _clear(folder, num_parts)
    store = PseudoLabelStore.create(folder, grid=dataset.grid, made_by=_made_by(dataset, fold, adapter_file))
    predictor = VolumePredictor(model, model.geometry.patch_size, dataset.settings.pseudo_labels, device)
    share = cases.identifiers[part_id::num_parts]
    todo = [identifier for identifier in share if not _is_done(store, cases, identifier)]
    print(f"{len(share) - len(todo)} of {len(share)} cases are there already")
    for identifier in tqdm(todo, desc="Pseudo-labelling"):
        _label_case(store, cases, identifier, predictor, dataset)
    _summarise(store, share)
    return store


def _summarise(store: PseudoLabelStore, identifiers: list[str]) -> None:
    """Say how sure SAM is, and which cases it found nothing in."""
    sure = {case: store.read_confidence(case)["foreground_mean_max_probability"] for case in identifiers}
    empty = sorted(case for case, value in sure.items() if value is None)
    found = [value for value in sure.values() if value is not None]
    if found:
        print(f"mean probability over predicted foreground: {np.mean(found):.3f} (lowest {min(found):.3f})")
    if empty:
        print(f"no foreground in {len(empty)} of {len(identifiers)} cases: {', '.join(empty)}")


def _label_case(
    store: PseudoLabelStore,
    cases: UnlabelledDataset,
    identifier: str,
    predictor: VolumePredictor,
    dataset: SFRDataset,
) -> None:
    image, mask, _, properties = cases.load_case(identifier)
    check_grid(properties, image.shape[1:], dataset.plans_manager, dataset.configuration_manager, identifier)
    probabilities = predictor.probabilities(torch.from_numpy(image[:]))
    labels = probabilities.argmax(dim=0)
    record = {**confidence_record(probabilities, labels), "input": image_hash(properties)}
    # nnU-Net marks background outside the image's non-zero mask by -1; its masked augmentation relies on that
    stored = np.where((mask[:] < 0) & (labels.numpy()[None] == 0), -1, labels.numpy()[None])
    store.write(
        identifier,
        stored,
        record,
        label_manager=dataset.label_manager,
        patch_size=dataset.configuration_manager.patch_size,
    )


def _is_done(store: PseudoLabelStore, cases: UnlabelledDataset, identifier: str) -> bool:
    """Whether the store has this case, made from the image as it is now."""
    if not store.has(identifier):
        return False
    _, _, _, properties = cases.load_case(identifier)
    return store.read_confidence(identifier).get("input") == image_hash(properties)


def _made_by(dataset: SFRDataset, fold: Fold, adapter_file: Path) -> dict[str, Any]:
    settings = dataset.settings.to_dict()
    return {
        "source": SOURCE,
        "fold": fold,
        "round": 0,
        "adapter": adapter_file.name,
        "adapter_sha256": file_hash(adapter_file),
        **{section: settings[section] for section in ("stitching", "sam", "pseudo_labels")},
    }


def _clear(folder: Path, num_parts: int) -> None:
    if not folder.is_dir():
        return
    if num_parts > 1:
        raise UserError(
            f"{folder}: --overwrite with -num_parts would delete other parts' work; delete the folder first"
        )
    shutil.rmtree(folder)
