"""The pseudo-label store and the data set that reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_sfr.data import pseudo_label_store
from nnunet_sfr.data.datasets import PseudoLabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError

GRID = {"spacing": [1.0, 1.0, 1.0]}
MADE_BY = Provenance(source="sam", adapter_sha256="a" * 64)


def write(store: PseudoLabelStore, project: SFRDataset, identifier: str, labels: np.ndarray) -> None:
    store.write(
        identifier,
        labels,
        {"mean_max_probability": 0.9},
        label_manager=project.label_manager,
        patch_size=project.configuration_manager.patch_size,
    )


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """Labels -1, 0, 1 in an order that no transposition keeps."""
    return (np.arange(np.prod(shape)).reshape(shape) % 3 - 1).astype(np.int8)


def test_labels_come_back_and_the_store_goes_on(project: SFRDataset, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    labels = numbered((1, 7, 9, 11))
    write(PseudoLabelStore.create(folder, grid=GRID, made_by=MADE_BY), project, "case.with.dots", labels)
    again = PseudoLabelStore.create(folder, grid=GRID, made_by=MADE_BY)
    assert again.identifiers() == ["case.with.dots"]
    np.testing.assert_array_equal(again.read_labels("case.with.dots"), labels)
    assert again.read_confidence("case.with.dots") == {"mean_max_probability": 0.9, "made_by": MADE_BY.fingerprint}
    assert PseudoLabelStore.open(folder, grid=GRID).identifiers() == ["case.with.dots"]


@pytest.mark.parametrize(
    ("grid", "made_by", "said"),
    [
        (GRID, replace(MADE_BY, adapter_sha256="b" * 64), "made with another adapter_sha256; add --overwrite"),
        ({"spacing": [2.0, 1.0, 1.0]}, MADE_BY, "made with another spacing"),
    ],
)
def test_another_maker_is_refused(tmp_path: Path, grid: Any, made_by: Any, said: str) -> None:
    PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    with pytest.raises(UserError, match=said):
        PseudoLabelStore.create(tmp_path / "store", grid=grid, made_by=made_by)


def test_opening_what_is_not_there_or_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no pseudo-labels; run sfr_pseudolabel first"):
        PseudoLabelStore.open(tmp_path / "store", grid=GRID)
    PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    with pytest.raises(UserError, match=r"made for spacing \[1.0, 1.0, 1.0\], the plan has \[3.0, 1.0, 1.0\]"):
        PseudoLabelStore.open(tmp_path / "store", grid={"spacing": [3.0, 1.0, 1.0]})


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("sam", "run sfr_finetune --overwrite, then sfr_pseudolabel --overwrite"),
        ("model", "run sfr_pseudolabel"),
    ],
)
def test_the_remedy_is_that_of_the_source(tmp_path: Path, source: str, remedy: str) -> None:
    PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=Provenance(source=source))
    with pytest.raises(UserError, match=f"the plan has .*; {remedy}"):
        PseudoLabelStore.open(tmp_path / "store", grid={"spacing": [3.0, 1.0, 1.0]})


def test_another_source_is_the_only_difference_named(tmp_path: Path) -> None:
    PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    with pytest.raises(UserError, match="made with another source; add --overwrite"):
        PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=Provenance.of_images(fold="all"))


def test_every_store_has_a_folder_of_its_own(project: SFRDataset) -> None:
    paths = project.paths
    folders = [
        paths.pseudo_labels("all"),
        paths.pseudo_labels(0),
        paths.pseudo_labels("all", round_index=1),
        paths.pseudo_labels("all", trainer="nnUNetTrainer_ST", round_index=1),
        paths.pseudo_labels("all", trainer="nnUNetTrainerSFR_ST", round_index=1),
    ]
    assert len(set(folders)) == len(folders)
    assert [folder.name for folder in folders[::3]] == ["round_0", "nnUNetTrainer_ST_round_1"]


def test_a_case_counts_only_when_it_is_whole(project: SFRDataset, tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    with (
        mock.patch.object(pseudo_label_store, "write_json", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        write(store, project, "case", numbered((1, 4, 5, 6)))
    assert store.identifiers() == []
    assert not store.has("case")


@pytest.mark.parametrize("suffix", [".b2nd", ".pkl"])
def test_a_record_without_its_files_is_no_case(project: SFRDataset, tmp_path: Path, suffix: str) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    write(store, project, "case", numbered((1, 4, 5, 6)))
    (store.folder / f"case{suffix}").unlink()
    assert store.identifiers() == []
    assert store.find_record("case") is None


def test_labels_do_not_change_hands_when_the_manifest_is_deleted(project: SFRDataset, tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    write(store, project, "case", numbered((1, 4, 5, 6)))
    (store.folder / "manifest.json").unlink()
    same = PseudoLabelStore.create(store.folder, grid=GRID, made_by=MADE_BY)
    assert same.identifiers() == ["case"]
    (store.folder / "manifest.json").unlink()
    other = PseudoLabelStore.create(store.folder, grid=GRID, made_by=replace(MADE_BY, adapter_sha256="b" * 64))
    assert other.identifiers() == []


def test_stores_without_hashes_in_their_records_are_read(project: SFRDataset, tmp_path: Path) -> None:
    """As versions before format 2 wrote them; but only beside the manifest of their time."""
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    write(store, project, "case", numbered((1, 4, 5, 6)))
    record, manifest = store.folder / "case.json", store.folder / "manifest.json"
    record.write_text(json.dumps({"mean_max_probability": 0.9}))
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content.pop("format") == 2
    manifest.write_text(json.dumps(content))
    assert PseudoLabelStore.open(store.folder, grid=GRID).identifiers() == ["case"]
    assert PseudoLabelStore.create(store.folder, grid=GRID, made_by=MADE_BY).identifiers() == ["case"]
    manifest.unlink()
    assert PseudoLabelStore.create(store.folder, grid=GRID, made_by=MADE_BY).identifiers() == []


def test_no_name_of_a_case_collides_with_the_manifest(project: SFRDataset, tmp_path: Path) -> None:
    names = ["Manifest", "manifest", "manifest.json", "manifest.record", "manifest.record.record", "manifest_0"]
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    for number, name in enumerate(names):
        write(store, project, name, np.full((1, 4, 5, 6), number, np.int8))
    again = PseudoLabelStore.open(store.folder, grid=GRID)
    assert again.identifiers() == sorted(names)
    assert [int(again.read_labels(name).max()) for name in names] == list(range(len(names)))
    assert len({file.name.lower() for file in store.folder.iterdir()}) + 3 == 1 + 3 * len(names), (
        "Manifest and manifest differ in capital letters alone; no other two files do"
    )


def test_a_full_disk_is_one_line_and_leaves_nothing(project: SFRDataset, tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(nnUNetDatasetBlosc2, "save_seg", side_effect=full),
        pytest.raises(UserError, match=r"case\.b2nd: the disk is full; free some space and run the same command again"),
    ):
        write(store, project, "case", numbered((1, 4, 5, 6)))
    assert sorted(file.name for file in store.folder.iterdir()) == ["manifest.json"]


def test_the_data_set_pairs_images_with_pseudo_labels(project: SFRDataset) -> None:
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    cases = PseudoLabelledDataset(project.paths.unlabelled, store)
    assert cases.identifiers == ["unlabelled_00", "unlabelled_01"]
    image, labels, previous, properties = cases.load_case("unlabelled_01")
    assert previous is None
    assert image.shape[1:] == labels.shape[1:] == (19, 23, 21)
    np.testing.assert_array_equal(labels[:], store.read_labels("unlabelled_01"))
    locations = properties["class_locations"][1]
    assert len(locations) == (labels[:] == 1).sum()
    assert all(labels[:][tuple(voxel)] == 1 for voxel in locations[:50])


def test_missing_and_misshapen_pseudo_labels_are_named(project: SFRDataset) -> None:
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    write(store, project, "unlabelled_00", numbered((1, 5, 5, 5)))
    with pytest.raises(UserError, match=r"the pseudo-label of unlabelled_00 has shape \(5, 5, 5\)"):
        PseudoLabelledDataset(project.paths.unlabelled, store)
    (store.folder / "unlabelled_01.json").unlink()
    with pytest.raises(UserError, match=r"no pseudo-label for unlabelled_01 \(1 of 2 cases are missing\)"):
        PseudoLabelledDataset(project.paths.unlabelled, store)


def manifest_with(**changes: Any) -> str:
    return json.dumps({"grid": GRID, "made_by": MADE_BY.to_json(), **changes})


MANIFESTS = {
    "cut short": (json.dumps(GRID)[:-5], "cannot be read"),
    "zero bytes": ("", "is empty"),
    "a list": ("[]", "expected an object, got a list"),
    "an empty object": ("{}", "the key grid is missing"),
    "no source": (manifest_with(made_by={}), r"the key made_by\.source is missing"),
    "another source": (manifest_with(made_by={"source": 3}), r"made_by\.source: expected text, got 3"),
    "grid is a list": (manifest_with(grid=[]), "grid: expected an object, got a list"),
    "checkpoints are a list": (manifest_with(made_by={"source": "model", "checkpoints": []}), ".*expected an object"),
}


@pytest.mark.parametrize("damage", MANIFESTS, ids=lambda name: name.replace(" ", "_"))
def test_a_damaged_manifest_is_named(damage: str, tmp_path: Path) -> None:
    content, said = MANIFESTS[damage]
    PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    (tmp_path / "store" / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=rf"manifest\.json: {said}.*run the sfr_pseudolabel .* --overwrite"):
        PseudoLabelStore.open(tmp_path / "store", grid=GRID)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("case.json", b"[1]", "expected an object"),
        ("case.json", b'{"class_voxels": {"1": "many"}}', r"class_voxels\.1: expected a whole number, got 'many'"),
        ("case.pkl", b"", "is damaged"),
        ("case.pkl", b"nothing", "is damaged"),
        ("case.b2nd", b"", "damaged"),
    ],
)
def test_damaged_files_of_a_case_are_named(
    name: str, content: bytes, said: str, project: SFRDataset, tmp_path: Path
) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", grid=GRID, made_by=MADE_BY)
    write(store, project, "case", numbered((1, 4, 5, 6)))
    (store.folder / name).write_bytes(content)
    reading: dict[str, Callable[[str], Any]] = {
        "case.json": store.find_record,
        "case.pkl": store.read_locations,
        "case.b2nd": store.read_labels,
    }
    with pytest.raises(UserError, match=rf"{name}: {said}"):
        reading[name]("case")
