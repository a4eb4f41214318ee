"""What a later round of SFR+ starts from: a trained model, labels of two sources, and which case has which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import Fold
from nnunet_sfr.selection import Selection
from nnunet_sfr.trainers import ROUND_TRAINERS
from tests.tiny_project import build_trainer

LOW, HIGH = "unlabelled_00", "unlabelled_01"
"""The tiny project's pool, as :func:`prepare_round` divides it unless told otherwise."""

CHECKPOINT = "checkpoint_final.pth"


def prepare_round(
    dataset: SFRDataset, trained: Any, *, round_index: int = 1, low: Sequence[str] = (LOW,), fold: Fold = "all"
) -> Selection:
    """Write the two stores and the selection of a round.

    The labels tell who made them: SAM says that every voxel is foreground, the model that none is.

    Args:
        dataset: a tiny project.
        trained: the trainer of the previous round, after its training.
        round_index: which round.
        low: identifiers of low confidence; the rest of the pool is high.
        fold: of the training.
    """
    paths, made_by = dataset.paths, describe(trained, round_index, fold)
    fill(dataset, paths.model_pseudo_labels(fold, round_index), made_by, np.zeros_like)
    fill(dataset, paths.pseudo_labels(fold, round_index=round_index), {"source": "sam"}, np.ones_like)
    high = set(UnlabelledDataset(paths.unlabelled).identifiers) - set(low)
    selection = Selection(tuple(sorted(high)), tuple(sorted(low)), model=made_by)
    selection.save(paths.selection(fold, round_index))
    return selection


def finish_the_round_before(dataset: SFRDataset, name: str) -> None:
    """Train what the first later round of a method continues, and prepare that; nothing for trainers of round 0."""
    if name in ROUND_TRAINERS:
        previous = build_trainer(dataset, name.replace("SFRPlus", "SFR"))
        previous.run_training()
        prepare_round(dataset, previous)


def describe(trained: Any, round_index: int = 1, fold: Fold = "all") -> dict[str, Any]:
    """``made_by`` of the store that a trained model fills."""
    file = Path(trained.output_folder, CHECKPOINT)
    return {
        "source": "retraining",
        "fold": fold,
        "round": round_index,
        "trainer": type(trained).__name__,
        "model": file.parent.parent.name,
        "checkpoints": {f"fold_{fold}": [CHECKPOINT, file_hash(file)]},
    }


def fill(dataset: SFRDataset, folder: Path, made_by: dict[str, Any], label: Callable[[np.ndarray], np.ndarray]) -> None:
    """A store in which every case has the labels that a function makes of its first channel (1, D, H, W)."""
    store = PseudoLabelStore.create(folder, grid=dataset.grid, made_by=Provenance.from_json(made_by))
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    for identifier in cases.identifiers:
        image, _, _, _ = cases.load_case(identifier)
        store.write(
            identifier,
            label(image[:][:1]).astype(np.int8),
            {},
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
        )
