"""A tiny project with a round of SFR+ whose labels are cuboids, so that every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset

FIRST, SECOND = "unlabelled_00", "unlabelled_01"
SAM = {"source": "sam", "fold": "all", "adapter": "adapter_final.safetensors", "adapter_sha256": "abcdef0123456789"}
MODEL = {
    "source": "retraining",
    "fold": "all",
    "round": 1,
    "model": "folder",
    "trainer": "nnUNetTrainerSFR_MT",
    "checkpoints": {"fold_all": ["checkpoint_final.pth", "fedcba98"]},
}
Cuboid = Sequence[slice]
CUBOID = (slice(4, 8), slice(6, 12), slice(5, 15))
"""4 x 6 x 10 = 240 voxels."""
SHIFTED = (slice(4, 8), slice(6, 12), slice(10, 15))
"""The half of it: Dice 2 x 120 / 360 = 2/3."""
NOTHING = (slice(0, 0), slice(0, 0), slice(0, 0))


def sam_made(dataset: SFRDataset, round_index: int) -> dict[str, Any]:
    settings = dataset.settings.to_dict()
    return {**SAM, "round": round_index, "stitching": settings["stitching"], "sam": settings["sam"]}


def fill(
    dataset: SFRDataset,
    folder: Path,
    made_by: Mapping[str, Any],
    cuboids: Mapping[str, Cuboid],
    **entries: Mapping[str, float | None],
) -> PseudoLabelStore:
    """A store whose label maps are cuboids of class 1; ``entries`` are parts of the record, by case."""
    store = PseudoLabelStore.create(folder, grid=dataset.grid, made_by=Provenance.from_json(made_by))
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    for case, cuboid in cuboids.items():
        image, _, _, properties = cases.load_case(case)
        labels = np.zeros((1, *image.shape[1:]), np.int8)
        labels[:, :1] = -1
        labels[0][tuple(cuboid)] = 1
        record = no_confidence(torch.from_numpy(labels), num_classes=dataset.num_classes)
        record |= {name: values.get(case) for name, values in entries.items()}
        store.write(
            case,
            labels,
            {**record, "input": image_hash(properties)},
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
        )
    return store


def fill_sam(dataset: SFRDataset, cuboids: Mapping[str, Cuboid], *, round_index: int = 0) -> PseudoLabelStore:
    return fill(
        dataset,
        dataset.paths.pseudo_labels("all", round_index=round_index),
        sam_made(dataset, round_index),
        cuboids,
        flip_agreement={FIRST: 0.5, SECOND: 0.8},
        expected_dice={FIRST: 0.5, SECOND: 1.0},
    )


def fill_model(dataset: SFRDataset, cuboids: Mapping[str, Cuboid]) -> PseudoLabelStore:
    return fill(
        dataset,
        dataset.paths.model_pseudo_labels("all", 1),
        MODEL,
        cuboids,
        flip_agreement={FIRST: 0.9, SECOND: 0.6},
        sam_agreement={FIRST: 2 / 3, SECOND: 0.5},
    )
