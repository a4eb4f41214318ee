"""The mean of two sources of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.fusion import Fusion

CASE = "unlabelled_00"


def store_with(project: SFRDataset, folder: Path, certainty: np.ndarray | None) -> PseudoLabelStore:
    """Labels 0, 1 and 2, one a voxel, with these probabilities."""
    store = PseudoLabelStore.create(folder, grid=project.grid, made_by=Provenance(source="test"))
    labels = np.array([0, 1, 2], np.int8).reshape(1, 1, 1, 3)
    store.write(
        CASE,
        labels,
        {},
        label_manager=project.label_manager,
        patch_size=(1, 1, 3),
        voxel_confidence=certainty,
    )
    return store


def test_probabilities_are_mixed_voxel_by_voxel(project: SFRDataset, tmp_path: Path) -> None:
    store = store_with(project, tmp_path / "store", np.array([1.0, 0.6, 0.2], np.float32).reshape(1, 1, 3))
    ours = torch.tensor([[0.1, 0.5, 0.2], [0.2, 0.25, 0.2], [0.7, 0.25, 0.6]]).view(3, 1, 1, 3)
    mixed = Fusion(store, 0.25)(CASE, ours)
    # of three classes, the two that are not the label share the rest evenly; a byte keeps 0.6 and 0.2 exactly
    theirs = torch.tensor([[1.0, 0.2, 0.4], [0.0, 0.6, 0.4], [0.0, 0.2, 0.2]]).view(3, 1, 1, 3)
    torch.testing.assert_close(mixed, 0.75 * ours + 0.25 * theirs)
    torch.testing.assert_close(mixed.sum(dim=0), torch.ones(1, 1, 3))
    assert mixed[:, 0, 0, 0].argmax() == 2, "a quarter of certainty does not outweigh 0.7"
    assert Fusion(store, 0.5)(CASE, ours)[:, 0, 0, 0].argmax() == 0


def test_labels_without_probabilities_are_refused(project: SFRDataset, tmp_path: Path) -> None:
    store = store_with(project, tmp_path / "store", None)
    with pytest.raises(UserError, match=r"no probabilities of unlabelled_00, of which rounds.model_share takes 0.5"):
        Fusion(store, 0.5)(CASE, torch.full((2, 1, 1, 3), 0.5))
    with pytest.raises(UserError, match="has no probabilities of another"):
        Fusion(store, 0.5)("another", torch.full((2, 1, 1, 3), 0.5))
