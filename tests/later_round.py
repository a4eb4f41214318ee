"""A round of SFR+ in a tiny project with scripted confidences: who is high, who is low, and labels that tell whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nnunet_sfr.confidence import no_confidence
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.selection import Rule, Selection, select

HIGH, LOW = "unlabelled_00", "unlabelled_01"
MODEL = Provenance(source="retraining", fold="all", round_index=1, model="scripted")
BY_FLIPS = Rule(confidence="flip_agreement", confidence_of="model", threshold=0.5, high_fraction=0.5)


def fill_model_store(
    dataset: SFRDataset, confidences: Mapping[str, float | None], *, label: int = 1, round_index: int = 1
) -> PseudoLabelStore:
    """The re-trained model's labels: every voxel of every case is ``label``; its flip agreement is scripted."""
    store = PseudoLabelStore.create(
        dataset.paths.model_pseudo_labels("all", round_index), grid=dataset.grid, made_by=MODEL
    )
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    for identifier in cases.identifiers:
        labels = np.full(cases.load_case(identifier)[0].shape[1:], label, np.int8)[None]
        record: dict[str, Any] = no_confidence(torch.from_numpy(labels), num_classes=dataset.num_classes)
        store.write(
            identifier,
            labels,
            {**record, "flip_agreement": confidences[identifier]},
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
        )
    return store


def scripted_round(dataset: SFRDataset) -> Selection:
    """Round 1 of a project with two unlabelled cases: the first is high, the second low."""
    fill_model_store(dataset, {HIGH: 0.9, LOW: 0.1})
    return select(dataset, "all", 1, BY_FLIPS)
