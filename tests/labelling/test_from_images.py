"""Label maps as pseudo-labels: nnU-Net's preprocessing and nothing else, and every file that does not fit is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.export import export_pseudo_labels
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling import filling, from_images
from nnunet_sfr.labelling.filling import CasePartition
from nnunet_sfr.labelling.from_images import label_from_images
from tests.tiny_dataset import BACKGROUND, BLOB, NAME, blob_case, make_raw_dataset, write_case, write_image
from tests.tiny_project import fill_store, make_project, nnunet_folders, plan_project

CASES = ["unlabelled_00", "unlabelled_01"]


@pytest.fixture
def maps(project: SFRDataset, tmp_path: Path) -> Path:
    """Label maps of all cases on the original grid, exported from the project's store, which is gone afterwards."""
    store = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    export_pseudo_labels(store, project, tmp_path / "maps")
    shutil.rmtree(store.folder)
    return tmp_path / "maps"


def label(dataset: SFRDataset, folder: Path, **share: Any) -> PseudoLabelStore:
    return label_from_images(dataset, "all", folder=folder, partition=CasePartition(**share))


def raw_image(dataset: SFRDataset, case: str, channel: int = 0) -> Any:
    return SimpleITK.ReadImage(str(dataset.paths.raw_unlabelled / f"{case}_{channel:04d}.nii.gz"))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


# --- what comes into the store ---------------------------------------------------------------------------------------


def test_exported_labels_come_back_to_the_voxel(project: SFRDataset, maps: Path) -> None:
    expected = fill_store(project)
    labels = {case: expected.read_labels(case) for case in CASES}
    store = label(project, maps, overwrite=True)
    assert store.identifiers() == CASES
    assert store.made_by.source == "images"
    for case in CASES:
        np.testing.assert_array_equal(store.read_labels(case), labels[case])
        record = store.read_confidence(case)
        assert record["mean_max_probability"] is None
        assert record["class_voxels"] == {"0": int((labels[case] == 0).sum()), "1": int((labels[case] == 1).sum())}
    # the trainers take it like any other
    assert PseudoLabelledDataset(project.paths.unlabelled, store).identifiers == CASES


def test_labels_survive_anisotropic_resampling(tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        options: dict[str, Any] = {"spacing": (3.0, 1.0, 1.0), "shape": (16, 36, 34)}
        dataset = make_project(tmp_path, target_spacing=(2.2, 1.4, 1.4), unlabelled=1, **options)
        expected = fill_store(dataset).read_labels(CASES[0])[0]
        store = PseudoLabelStore.open(dataset.paths.pseudo_labels("all"), grid=dataset.grid)
        export_pseudo_labels(store, dataset, tmp_path / "maps")
        labels = label(dataset, tmp_path / "maps", overwrite=True).read_labels(CASES[0])[0]
    assert labels.shape == expected.shape == (22, 26, 24)
    assert dice(labels == 1, expected == 1) > 0.9
    for axis in range(3):
        assert dice(labels == 1, np.roll(expected, 2, axis) == 1) < 0.85, "two voxels aside must tell"


def test_crop_transposition_and_mask_are_those_of_the_image(tmp_path: Path) -> None:
    """A plan that transposes, an image with a frame and a corner of zeros, and labels of several classes."""
    with nnunet_folders(tmp_path):
        options: dict[str, Any] = {"shape": (24, 22, 10), "spacing": (1.0, 1.0, 3.0), "classes": 3}
        make_raw_dataset(tmp_path / "nnUNet_raw", unlabelled=1, **options)
        images, truth = blob_case(np.random.default_rng(2), (26, 22, 10), classes=3)
        images[:, :3] = images[:, 3:8, :6] = 0
        truth[:3] = truth[3:8, :6] = 0
        write_case(tmp_path / "nnUNet_raw" / NAME, CASES[0], images, None, suffix="Ul", spacing=options["spacing"])
        dataset = plan_project()
        assert dataset.plans_manager.transpose_forward == [2, 0, 1]
        write_image(tmp_path / "maps" / f"{CASES[0]}.nii.gz", truth, options["spacing"])
        labels = label(dataset, tmp_path / "maps").read_labels(CASES[0])[0]
        _, mask, _, _ = UnlabelledDataset(dataset.paths.unlabelled).load_case(CASES[0])
    expected = truth[3:].transpose(2, 0, 1).astype(int)
    expected[:, :5, :6] = -1
    assert set(np.unique(expected)) == {-1, 0, 1, 2, 3}
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(labels == -1, mask[0] == -1)


@pytest.mark.parametrize(
    "options",
    [
        {"configuration": "2d", "shape": (10, 40, 36)},
        {"channels": 2, "classes": 2, "labels": {"background": 0, "whole": [1, 2], "core": 2}},
    ],
    ids=["2d", "regions_and_two_channels"],
)
def test_every_kind_of_data_set(options: dict[str, Any], tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, **options)
        for case in CASES:
            image = SimpleITK.GetArrayFromImage(raw_image(dataset, case))
            middle = (BACKGROUND + BLOB) / 2
            truth = (image > middle).astype(np.uint8) + (image > middle + 75) * np.uint8("labels" in options)
            write_image(tmp_path / "maps" / f"{case}.nii.gz", truth)
            # spacing is 1 mm before and after, and nothing is cropped
            np.testing.assert_array_equal(label_one(dataset, tmp_path / "maps", case), truth)


def label_one(dataset: SFRDataset, folder: Path, case: str) -> np.ndarray:
    """Labels of one case, the other one's file being a copy of its grid."""
    for other in CASES:
        if not (folder / f"{other}.nii.gz").is_file():
            empty = SimpleITK.Cast(raw_image(dataset, other) * 0, SimpleITK.sitkUInt8)
            SimpleITK.WriteImage(empty, str(folder / f"{other}.nii.gz"))
    labels: np.ndarray = label(dataset, folder).read_labels(case)[0]
    return labels


# --- continuing -------------------------------------------------------------------------------------------------------


def times(store: PseudoLabelStore) -> dict[str, int]:
    return {case: (store.folder / f"{case}.b2nd").stat().st_mtime_ns for case in store.identifiers()}


def test_only_a_changed_file_is_taken_anew(project: SFRDataset, maps: Path) -> None:
    before = times(label(project, maps))
    assert times(label(project, maps)) == before
    file = maps / f"{CASES[1]}.nii.gz"
    image = SimpleITK.ReadImage(str(file))
    image[1, 2, 3] = 1 - image[1, 2, 3]
    SimpleITK.WriteImage(image, str(file))
    store = label(project, maps)
    assert times(store)[CASES[0]] == before[CASES[0]]
    assert times(store)[CASES[1]] != before[CASES[1]]
    assert store.read_labels(CASES[1])[0, 3, 2, 1] == image[1, 2, 3]


def test_an_interrupted_run_goes_on(project: SFRDataset, maps: Path) -> None:
    write_case_ = filling.write_case

    def die_at_the_second(store: Any, identifier: str, *rest: Any) -> None:
        if identifier == CASES[1]:
            raise KeyboardInterrupt
        write_case_(store, identifier, *rest)

    with (
        mock.patch.object(from_images, "write_case", side_effect=die_at_the_second),
        pytest.raises(KeyboardInterrupt),
    ):
        label(project, maps)
    first = project.paths.pseudo_labels("all") / f"{CASES[0]}.b2nd"
    before = first.stat().st_mtime_ns
    assert label(project, maps).identifiers() == CASES
    assert first.stat().st_mtime_ns == before


def test_parts_share_the_cases(project: SFRDataset, maps: Path) -> None:
    assert label(project, maps, num_parts=2, part_id=1).identifiers() == CASES[1:]
    assert label(project, maps, num_parts=2, part_id=0).identifiers() == CASES


def test_a_store_of_another_source_is_refused(project: SFRDataset, maps: Path) -> None:
    fill_store(project)
    with pytest.raises(UserError, match="holds pseudo-labels made with another source; add --overwrite to replace"):
        label(project, maps)


# --- refusals --------------------------------------------------------------------------------------------------------


def change(folder: Path, edit: Callable[[Any], Any], case: str = CASES[1]) -> None:
    """Rewrite one label map; ``edit`` gets a SimpleITK image and returns one."""
    file = folder / f"{case}.nii.gz"
    SimpleITK.WriteImage(edit(SimpleITK.ReadImage(str(file))), str(file))


def change_all(folder: Path, edit: Callable[[Any], Any]) -> None:
    for case in CASES:
        change(folder, edit, case)


def with_geometry(image: Any, **values: Any) -> Any:
    for name, value in values.items():
        getattr(image, f"Set{name}")(value)
    return image


def with_value(image: Any, value: float) -> Any:
    image = SimpleITK.Cast(image, SimpleITK.sitkFloat32)
    image[4, 5, 6] = value
    return image


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


SECOND = f"{CASES[1]}.nii.gz"
MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "maps: not found; name the folder with the label maps, <case>.nii.gz"),
    "one missing": (
        lambda maps: (maps / SECOND).unlink(),
        rf"{SECOND}: not found \(1 of 2 label maps are missing\)",
    ),
    "another ending": (
        lambda maps: [file.rename(file.with_suffix("").with_suffix(".nrrd")) for file in list(maps.iterdir())],
        rf"{CASES[0]}.nii.gz: not found \(2 of 2 label maps are missing\); every unlabelled case needs one, called",
    ),
    "truncated": (lambda maps: truncate(maps / SECOND), f"{SECOND}: label of case unlabelled_01 cannot be read"),
    "no image": (lambda maps: (maps / SECOND).write_text("nothing"), "label of case unlabelled_01 cannot be read"),
    "another size": (
        lambda maps: shutil.copy(maps / f"{CASES[0]}.nii.gz", maps / SECOND),
        f"{SECOND}: 18 x 22 x 20 voxels, but the image of case unlabelled_01 has 19 x 23 x 21",
    ),
    "another spacing": (
        lambda maps: change(maps, lambda image: with_geometry(image, Spacing=(1.0, 1.0, 1.1))),
        f"{SECOND}: spacing 1.1 1 1, but the image of case unlabelled_01 has 1 1 1",
    ),
    "another origin": (
        lambda maps: change(maps, lambda image: with_geometry(image, Origin=(0.0, 0.5, 0.0))),
        "origin 0 0.5 0, but the image of case unlabelled_01 has 0 0 0",
    ),
    "another direction": (
        lambda maps: change(maps, lambda image: with_geometry(image, Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))),
        "direction -1 0 0 0 -1 0 0 0 1, but the image of case unlabelled_01 has 1 0 0 0 1 0 0 0 1",
    ),
    "unknown label": (
        lambda maps: change(maps, lambda image: with_value(image, 7)),
        f"{SECOND}: case unlabelled_01 has the value 7, which is no label in dataset.json",
    ),
    "negative": (lambda maps: change(maps, lambda image: with_value(image, -1)), "has the value -1, which is no"),
    "fraction": (lambda maps: change(maps, lambda image: with_value(image, 0.5)), "has the value 0.5, which is no"),
    "not a number": (lambda maps: change(maps, lambda image: with_value(image, np.nan)), "has NaN or infinite voxels"),
    "two of them": (
        lambda maps: change_all(maps, lambda image: with_value(image, 7)),
        rf"{CASES[0]}.nii.gz: .* \(and 1 more case\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda name: name.replace(" ", "_"))
def test_label_maps_that_are_refused(mistake: str, project: SFRDataset, maps: Path) -> None:
    """Nothing is written, although the first case is often in order."""
    break_it, said = MISTAKES[mistake]
    break_it(maps)
    with pytest.raises(UserError, match=said):
        label(project, maps)
    assert not project.paths.pseudo_labels("all").exists()


def test_a_refusal_leaves_an_earlier_store(project: SFRDataset, maps: Path) -> None:
    before = times(label(project, maps))
    change(maps, lambda image: with_value(image, 7))
    for overwrite in (False, True):
        with pytest.raises(UserError, match="has the value 7"):
            label(project, maps, overwrite=overwrite)
        assert times(label_store(project)) == before


def label_store(project: SFRDataset) -> PseudoLabelStore:
    return PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)


def test_the_ignore_label_is_no_class(tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, classes=2, labels={"background": 0, "blob": 1, "ignore": 2})
        for case in CASES:
            empty = SimpleITK.Cast(raw_image(dataset, case) * 0 + 1, SimpleITK.sitkUInt8)
            (tmp_path / "maps").mkdir(exist_ok=True)
            SimpleITK.WriteImage(empty, str(tmp_path / "maps" / f"{case}.nii.gz"))
        change(tmp_path / "maps", lambda image: with_value(image, 2))
        with pytest.raises(UserError, match="has the ignore label 2: a pseudo-label has to name a class"):
            label(dataset, tmp_path / "maps")
        change(tmp_path / "maps", lambda image: with_value(image, 1))
        assert label(dataset, tmp_path / "maps").identifiers() == CASES


def test_what_single_precision_does_to_a_header_is_no_difference(project: SFRDataset, maps: Path) -> None:
    """1e-7 in the place of a 0, which numpy's relative tolerance would not allow."""
    file = maps / SECOND
    image: Any = nibabel.load(file)
    affine = image.affine + np.array([[0, 2e-7, 0, 1e-5], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), file)
    assert SimpleITK.ReadImage(str(file)).GetOrigin() != raw_image(project, CASES[1]).GetOrigin()
    assert label(project, maps).identifiers() == CASES


def test_raw_images_have_to_be_there(project: SFRDataset, maps: Path) -> None:
    shutil.rmtree(project.paths.raw_unlabelled)
    with pytest.raises(UserError, match="imagesUl: not found"):
        label(project, maps)


def test_a_fold_that_no_training_has(project: SFRDataset, maps: Path) -> None:
    with pytest.raises(UserError, match="fold 2 cannot exist: 5-fold cross-validation needs 5 labelled cases"):
        label_from_images(project, 2, folder=maps)
