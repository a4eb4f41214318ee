"""What is removed of a case that is no longer in the pool."""

from __future__ import annotations

import numpy as np

from nnunet_sfr.corrections.derived_data import remove_pseudo_labels
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset


def test_a_case_goes_with_all_its_files_and_no_others(project: SFRDataset) -> None:
    """Also one whose name is that of the store's manifest."""
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    before = sorted(file.relative_to(store.folder) for file in store.folder.rglob("*") if file.is_file())
    store.write(
        "manifest",
        np.ones((1, 4, 5, 6), np.int8),
        {},
        label_manager=project.label_manager,
        patch_size=project.configuration_manager.patch_size,
        voxel_confidence=np.ones((4, 5, 6), np.float32),
    )
    assert "manifest" in store.identifiers()
    assert remove_pseudo_labels([project], ["manifest"]) == [store.folder]
    assert sorted(file.relative_to(store.folder) for file in store.folder.rglob("*") if file.is_file()) == before
    assert PseudoLabelStore.open(store.folder, grid=project.grid).identifiers() == ["unlabelled_00", "unlabelled_01"]
