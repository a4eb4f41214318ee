"""LA in nnU-Net's raw layout, from both of its layouts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.left_atrium import LeftAtriumDataset, open_source_dataset
from nnunet_sfr.conversion.lists import LISTS
from nnunet_sfr.conversion.raw_dataset import convert_source
from nnunet_sfr.conversion.source_dataset import ConversionRequest, Split
from nnunet_sfr.entry_points.convert import main
from nnunet_sfr.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "la"
SHAPE = (5, 4, 3)
"""(x, y, z) of the tiny volumes."""


def convert(source: Path, dataset: Path, *, labelled: int, allow_missing: bool = False) -> Split:
    opened = open_source_dataset(ConversionRequest(source, labelled, allow_missing=allow_missing))
    convert_source(opened, dataset, bar=False)
    return opened.split


@pytest.fixture
def lists() -> dict[str, list[str]]:
    content: dict[str, list[str]] = json.loads((LISTS / "LA.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def originals(tmp_path: Path, lists: dict[str, list[str]]) -> Path:
    """Three training cases (the third in the flat layout) and one test case, as ``.h5``."""
    source = tmp_path / "originals"
    for index, case in enumerate([*lists["train"][:3], lists["test"][0]]):
        write_h5(source / f"{case}.h5" if index == 2 else source / case / "mri_norm2.h5", index)
    return source


def write_h5(file: Path, index: int = 0, **arrays: NDArray[Any]) -> None:
    """A file with every voxel of its own value; ``arrays`` take the place of the right ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 1, 2] = 1
    content = {"image": np.arange(60, dtype=np.float32).reshape(SHAPE) + index / 4, "label": label, **arrays}
    with h5py.File(file, "w") as target:
        for name, array in content.items():
            target.create_dataset(name, data=array)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder with images/, labels/ and splits.json: a is labelled, b and c are not, d is to test; c has no label."""
    source = tmp_path / "volumes"
    for case in "abcd":
        label = np.zeros((3, 4, 5), np.uint8)
        label[1, 2, 3] = 1
        write_nifti(label * ord(case), source / "images" / f"{case}.nii.gz")
        if case != "c":
            write_nifti(label, source / "labels" / f"{case}.nii.gz")
    splits = {"order": list("abcd"), "labeled_1": ["a"], "development_test": ["d"]}
    (source / "splits.json").write_text(json.dumps(splits))
    return source


def write_nifti(array: NDArray[Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.25,) * 3)
    sitk.WriteImage(image, str(file))


def files_below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_the_standard_lists(lists: dict[str, list[str]]) -> None:
    assert (len(lists["train"]), len(lists["test"])) == (80, 20)
    assert len({*lists["train"], *lists["test"]}) == 100


@pytest.mark.parametrize("labelled", [1, 4, 16])
def test_the_first_n_of_the_training_list_are_the_labelled_ones_of_the_shared_split(
    labelled: int, lists: dict[str, list[str]]
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no data at {SHARED}")
    shared = json.loads((SHARED / "splits.json").read_text(encoding="utf-8"))
    assert shared["order"] == lists["train"]
    assert shared[f"labeled_{labelled}"] == lists["train"][:labelled]


def test_originals_become_a_data_set(originals: Path, lists: dict[str, list[str]], tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "Dataset120_LA"
    split = convert(originals, dataset, labelled=2, allow_missing=True)
    (first, second, third), test = lists["train"][:3], lists["test"][0]
    assert (split.labelled, split.unlabelled, split.test) == ((first, second), (third,), (test,))
    assert files_below(dataset) == {
        "dataset.json",
        "sfr_convert.json",
        *(f"imagesTr/{case}_0000.nii.gz" for case in (first, second)),
        *(f"labelsTr/{case}.nii.gz" for case in (first, second)),
        f"imagesUl/{third}_0000.nii.gz",
        f"labelsUl_truth/{third}.nii.gz",
        f"imagesTs/{test}_0000.nii.gz",
        f"labelsTs/{test}.nii.gz",
    }
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "left_atrium": 1}
    assert content["numTraining"] == 2
    record = json.loads((dataset / "sfr_convert.json").read_text(encoding="utf-8"))
    assert (record["source"], record["unlabelled"]) == (str(originals), [third])
    assert record["missing"] == [*lists["train"][3:], *lists["test"][1:]]


def test_axes_values_and_spacing_of_the_originals(originals: Path, lists: dict[str, list[str]], tmp_path: Path) -> None:
    convert(originals, tmp_path / "LA", labelled=1, allow_missing=True)
    test = lists["test"][0]
    image = sitk.ReadImage(str(tmp_path / "LA" / "imagesTs" / f"{test}_0000.nii.gz"))
    label = sitk.ReadImage(str(tmp_path / "LA" / "labelsTs" / f"{test}.nii.gz"))
    assert image.GetSize() == SHAPE
    assert label.GetSpacing() == image.GetSpacing() == (0.625, 0.625, 0.625)
    # x=3, y=2, z=1 of the arange; the test case is the fourth, whose values are 0.75 higher
    assert image[3, 2, 1] == 3 * 12 + 2 * 3 + 1 + 0.75
    assert [label[1, 1, 2], label[2, 1, 2], label[2, 1, 1]] == [1, 1, 0]
    assert sitk.GetArrayFromImage(label).sum() == 2


def test_a_shared_original_lies_as_the_same_case_at_half_the_resolution(tmp_path: Path) -> None:
    case = "0RZDK210BSMWAA6467LU"  # its three sizes differ, so that no swapped pair of axes fits
    original = SHARED / "original_h5" / f"{case}.h5"
    if not original.is_file():
        pytest.skip(f"no data at {SHARED}")
    source = LeftAtriumDataset({case: original}, Split((case,), (), ()))
    source.write_images(case, tmp_path)
    source.write_label(case, tmp_path)
    for kind, suffix, least in (("image", "_0000", 0.98), ("label", "", 0.95)):
        coarse = sitk.ReadImage(str(SHARED / f"{kind}s" / f"{case}.nii.gz"), sitk.sitkFloat32)
        fine = sitk.ReadImage(str(tmp_path / f"{case}{suffix}.nii.gz"), sitk.sitkFloat32)
        there = sitk.GetArrayFromImage(coarse)
        here = sitk.GetArrayFromImage(sitk.Resample(fine, coarse))
        assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > least
        for axis in range(3):
            assert np.corrcoef(np.flip(here, axis).ravel(), there.ravel())[0, 1] < 0.7


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:500]), r"mri_norm2\.h5: cannot be read as HDF5"),
        (lambda file: file.write_text("no HDF5"), r"mri_norm2\.h5: cannot be read as HDF5"),
        (lambda file: write_h5(file, label=np.zeros((3, 4, 5), np.uint8)), r"image of \(5, 4, 3\) and a label of \(3"),
        (lambda file: write_h5(file, label=np.zeros(SHAPE)), r"no 3D array 'label' of whole numbers"),
        (lambda file: write_h5(file, image=np.zeros(SHAPE[:2])), r"no 3D array 'image' of numbers"),
        (lambda file: write_h5(file, label=np.full(SHAPE, 2, np.uint8)), r"label has the value 2, where only 0 \(back"),
        (lambda file: write_h5(file, label=np.full(SHAPE, 256, np.int16)), r"label has the value 256"),
    ],
)
def test_a_damaged_original_leaves_nothing(
    damage: Callable[[Path], None], says: str, originals: Path, lists: dict[str, list[str]], tmp_path: Path
) -> None:
    damage(originals / lists["train"][1] / "mri_norm2.h5")
    with pytest.raises(UserError, match=says) as caught:
        convert(originals, tmp_path / "raw" / "LA", labelled=1, allow_missing=True)
    assert "\n" not in str(caught.value)
    assert lists["train"][1] in str(caught.value)
    assert files_below(tmp_path / "raw") == set()


def test_missing_originals(originals: Path, lists: dict[str, list[str]], tmp_path: Path) -> None:
    first_missing = ", ".join(lists["train"][3:13])
    with pytest.raises(
        UserError, match=rf"96 of 100 cases are missing: {first_missing} and 86 more; .*--allow-missing"
    ):
        convert(originals, tmp_path / "LA", labelled=1)
    with pytest.raises(UserError, match=rf"1 of the 4 cases to label are missing: {lists['train'][3]}"):
        convert(originals, tmp_path / "LA", labelled=4, allow_missing=True)
    with pytest.raises(UserError, match="leaves no unlabelled case with --labelled 3"):
        convert(originals, tmp_path / "LA", labelled=3, allow_missing=True)
    for labelled in (0, 80):
        with pytest.raises(UserError, match=f"--labelled must be from 1 to 79 with the standard lists, got {labelled}"):
            convert(originals, tmp_path / "LA", labelled=labelled, allow_missing=True)
    assert not (tmp_path / "LA").exists()


def test_a_folder_of_volumes_becomes_a_data_set(volumes: Path, tmp_path: Path) -> None:
    split = convert(volumes, tmp_path / "LA", labelled=1)
    assert (split.labelled, split.unlabelled, split.test) == (("a",), ("b", "c"), ("d",))
    assert files_below(tmp_path / "LA") == {
        "dataset.json",
        "sfr_convert.json",
        *(f"imagesTr/{case}_0000.nii.gz" for case in "a"),
        *(f"imagesUl/{case}_0000.nii.gz" for case in "bc"),
        *(f"imagesTs/{case}_0000.nii.gz" for case in "d"),
        "labelsTr/a.nii.gz",
        "labelsUl_truth/b.nii.gz",
        "labelsTs/d.nii.gz",
    }
    copied = tmp_path / "LA" / "imagesUl" / "b_0000.nii.gz"
    assert copied.read_bytes() == (volumes / "images" / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "labels/d.nii.gz").unlink(), r"labels/d\.nii\.gz: not found; .* cannot be scored"),
        (lambda folder: (folder / "labels/a.nii.gz").unlink(), r"labels/a\.nii\.gz: not found"),
        (lambda folder: (folder / "splits.json").unlink(), r"splits\.json: not found"),
        (lambda folder: write_nifti(np.full((3, 4, 5), 7, np.uint8), folder / "labels/b.nii.gz"), r"b: .* the value 7"),
    ],
)
def test_a_damaged_folder_leaves_nothing(
    damage: Callable[[Path], None], says: str, volumes: Path, tmp_path: Path
) -> None:
    damage(volumes)
    with pytest.raises(UserError, match=says):
        convert(volumes, tmp_path / "raw" / "LA", labelled=1)
    assert files_below(tmp_path / "raw") == set()


def test_the_command(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    dataset = tmp_path / "raw" / "Dataset007_LA"

    def call(*options: str, source: Path = volumes) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sfr_convert", "LA", str(source), *options])
        return main(), capsys.readouterr().err.splitlines()[-1]

    assert call("-d", "7", "--labelled", "1")[0] == 0
    before = files_below(dataset)
    (dataset / "labelsTr" / "a.nii.gz").unlink()
    code, said = call("-d", "7", "--labelled", "1")
    assert (code, "exists; add --overwrite to replace it" in said) == (1, True)
    code, said = call("-d", "7", "--labelled", "4", "--overwrite")
    assert (code, "has no labeled_4; choose --labelled from: 1" in said) == (1, True)
    assert files_below(dataset) == before - {"labelsTr/a.nii.gz"}
    assert call("-d", "7", "--labelled", "1", "--overwrite")[0] == 0
    assert files_below(dataset) == before

    (dataset / "sfr_convert.json").unlink()
    code, said = call("-d", "7", "--labelled", "1", "--overwrite")
    assert (code, "sfr_convert did not write it and will not delete it" in said) == (1, True)
    (tmp_path / "raw" / "Dataset008_Heart").mkdir()
    code, said = call("-d", "8", "--labelled", "1")
    assert (code, "Dataset008_Heart: has the number 8 already" in said) == (1, True)
    code, said = call("-d", "9", source=tmp_path)
    assert (code, "has neither images/, labels/ and splits.json, nor a CASE/mri_norm2.h5" in said) == (1, True)
    assert sorted(entry.name for entry in (tmp_path / "raw").iterdir()) == ["Dataset007_LA", "Dataset008_Heart"]
