"""Every public data set from a small tree of its own layout and oddities, against values that stand in the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_sfr.atomic import replacing
from nnunet_sfr.conversion import PUBLIC_DATASETS, abdomenct_1k, mact, nnunet, raw_dataset
from nnunet_sfr.conversion.brats import CHANNELS
from nnunet_sfr.conversion.lists import CaseLists, choose_labelled, read_lists
from nnunet_sfr.conversion.mact import fold_lists
from nnunet_sfr.conversion.nifti_dataset import NiftiDataset
from nnunet_sfr.conversion.raw_dataset import convert_source, dataset_folder
from nnunet_sfr.conversion.source_dataset import ConversionRequest, Split
from nnunet_sfr.entry_points.convert import main
from nnunet_sfr.errors import UserError
from nnunet_sfr.replacement import set_aside
from tests.conversion import trees
from tests.tiff_dataset import SPACING, edit_dataset_json, turn_into_tiff
from tests.tiny_dataset import make_raw_dataset

SPLITS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "splits.json").read_text(encoding="utf-8"))


def convert(name: str, source: Path, dataset: Path, labelled: int = 1, **request: Any) -> Split:
    known = ("channels", "regions", "fold", "list", "test")
    options: dict[str, Any] = {key: request.pop(key) for key in known if key in request}
    opened = PUBLIC_DATASETS[name].open(ConversionRequest(source, labelled, options=options, **request))
    convert_source(opened, dataset, bar=False)
    return opened.split


def dataset_json(dataset: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    return content


def load(file: Path) -> Any:
    return nibabel.load(file)


def names(dataset: Path, folder: str) -> list[str]:
    return sorted(file.name for file in (dataset / folder).iterdir())


# --- lists ---


@pytest.mark.parametrize(
    ("name", "training"), [("LA", "train"), ("BTCV", "train_after_seed1337_shuffle"), ("BraTS", "train")]
)
def test_lists_are_those_of_the_authors(name: str, training: str) -> None:
    lists, official = read_lists(name), SPLITS[name]
    assert list(lists.training) == official[training]
    assert list(lists.test) == official["test"]
    assert list(lists.validation) == official.get("val", [])
    assert len(set(lists.all)) == len(lists.all)


def test_btcv_has_the_labelled_cases_of_magicnet() -> None:
    for labelled in (5, 7):
        first = choose_labelled(read_lists("BTCV").training, labelled, None)
        assert list(first) == SPLITS["BTCV"][f"labelled_{labelled}_after_shuffle"]
    assert sorted(read_lists("BTCV").training) == sorted(SPLITS["BTCV"]["train_in_file_order"])


@pytest.mark.parametrize("fold", range(4))
def test_folds_of_mact(fold: int) -> None:
    official = SPLITS["MACT"]["folds"][fold]
    train = official["train_order_after_shuffle"] or official["train_index_set_sorted"]
    magicnet, paper = fold_lists(fold, "magicnet"), fold_lists(fold)
    assert [int(case) - 1 for case in magicnet.training] == train[:66]
    assert [int(case) - 1 for case in magicnet.test] == official["test_used_first_22"]
    assert (len(paper.training), len(paper.test)) == (70, 20)
    assert [int(case) - 1 for case in paper.training[: len(train)]] == train
    assert paper.test == magicnet.test[:20]
    assert {*paper.training, *paper.test} == {f"{number:04d}" for number in range(1, 91)}


def test_a_seed_draws_other_cases_and_the_same_ones_again() -> None:
    training = read_lists("BraTS").training
    drawn = choose_labelled(training, 50, 3)
    assert drawn == choose_labelled(training, 50, 3)
    assert len(set(drawn)) == 50
    assert set(drawn) != set(training[:50])
    assert choose_labelled(training, 5, 3) == drawn[:5], "a larger number adds to a smaller one"


# --- BraTS ---


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    cases = trees.few(read_lists("BraTS"), training=3, test=1)
    return trees.brats(tmp_path / "MICCAI_BraTS_2019_Data_Training", cases)


def test_brats_as_in_the_paper(brats: Path, tmp_path: Path) -> None:
    lists, dataset = read_lists("BraTS"), tmp_path / "raw" / "BraTS"
    # SOURCE may be the folder above, too
    split = convert("BraTS", brats.parent, dataset, labelled=2, allow_missing=True)
    assert split.labelled == lists.training[:2]
    assert (split.unlabelled, split.test, split.validation) == (
        (lists.training[2],),
        lists.test[:1],
        lists.validation[:1],
    )
    content = dataset_json(dataset)
    assert (content["channel_names"], content["numTraining"]) == ({"0": "FLAIR"}, 2)
    assert content["labels"] == {"background": 0, "whole_tumour": 1}
    assert content["sfr_convert"]["labelled"] == list(split.labelled)
    assert content["sfr_convert"]["dataset"] == "BraTS 2019"
    assert names(dataset, "imagesVal") == [f"{split.validation[0]}_0000.nii.gz"]
    case = split.labelled[0]
    truth = trees.read(brats / "HGG" / case / f"{case}_seg.nii.gz")
    assert set(np.unique(truth)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(trees.read(dataset / "labelsTr" / f"{case}.nii.gz"), truth > 0)
    source = brats / "HGG" / case / f"{case}_flair.nii.gz"
    assert (dataset / "imagesTr" / f"{case}_0000.nii.gz").read_bytes() == source.read_bytes()
    record = json.loads((dataset / "sfr_convert.json").read_text(encoding="utf-8"))
    assert (record["unlabelled"], len(record["missing"])) == ([lists.training[2]], 335 - 5)


def test_all_sequences_and_regions_of_brats(tmp_path: Path) -> None:
    cases = trees.few(read_lists("BraTS"), training=2, test=1)
    source = trees.brats(tmp_path / "source", cases, ending=".nii")
    dataset = tmp_path / "raw" / "BraTS"
    convert("BraTS", source, dataset, allow_missing=True, channels=tuple(CHANNELS), regions=True)
    content = dataset_json(dataset)
    assert list(content["channel_names"].values()) == ["FLAIR", "T1", "T1ce", "T2"]
    assert content["labels"]["tumour_core"] == [2, 3]
    assert content["regions_class_order"] == [1, 2, 3]
    case = cases[0]
    truth = trees.read(source / "HGG" / case / f"{case}_seg.nii")
    written = trees.read(dataset / "labelsTr" / f"{case}.nii.gz")
    for value, new in {2: 1, 1: 2, 4: 3}.items():
        np.testing.assert_array_equal(written == new, truth == value)
    np.testing.assert_array_equal(
        trees.read(dataset / "imagesTr" / f"{case}_0003.nii.gz"), trees.read(source / "HGG" / case / f"{case}_t2.nii")
    )


# --- BTCV ---


def test_btcv_with_all_cases_and_oblique_headers(tmp_path: Path) -> None:
    lists, dataset = read_lists("BTCV"), tmp_path / "raw" / "BTCV"
    order = sorted(lists.all)
    source = trees.btcv(tmp_path / "Abdomen", order, shape=(16, 6, 5))
    split = convert("BTCV", source / "RawData", dataset, labelled=7)
    assert split == Split(lists.training[:7], lists.training[7:], lists.test)
    assert len(dataset_json(dataset)["labels"]) == 14
    assert "0061_0000.nii.gz" not in {*names(dataset, "imagesUl"), *names(dataset, "imagesTs")}
    oblique = next(case for case in split.labelled if order.index(case) % 3 == 0)
    stored = source / "RawData/Training/img" / f"img{oblique}.nii.gz"
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(stored))
    image = sitk.ReadImage(str(dataset / "imagesTr" / f"{oblique}_0000.nii.gz"))
    axes = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, load(stored).get_fdata())
    label = sitk.ReadImage(str(dataset / "labelsTr" / f"{oblique}.nii.gz"))
    assert (label.GetOrigin(), label.GetDirection()) == (image.GetOrigin(), image.GetDirection())
    # no corner moves by more than rounding: a hundredth of a voxel
    affine, written = load(stored).affine, load(dataset / "imagesTr" / f"{oblique}_0000.nii.gz").affine
    assert np.abs((affine - written) @ [15, 5, 4, 1]).max() < 0.01


# --- MACT ---


@pytest.fixture(scope="module")
def mact_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.mact(tmp_path_factory.mktemp("mact"), range(1, 91))


def test_mact_is_cropped_and_its_labels_lie_on_the_images(mact_tree: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "MACT"
    split = convert("MACT", mact_tree, dataset, labelled=14)
    assert split.labelled == fold_lists(0).training[:14]
    assert (len(split.unlabelled), len(split.test)) == (56, 20)
    content = dataset_json(dataset)
    assert list(content["labels"])[1:] == [
        "spleen", "left_kidney", "gallbladder", "oesophagus", "liver", "stomach", "pancreas", "duodenum",
    ]  # fmt: skip
    folders = {case: folder for folder, cases in (("Tr", split.labelled), ("Ts", split.test)) for case in cases}
    for case in ("0002", "0004", "0006", "0011", "0041", "0054"):
        number = int(case)
        suffix = folders.get(case, "Ul")
        image = trees.read(dataset / f"images{suffix}" / f"{case}_0000.nii.gz")
        truth = {"Ul": "labelsUl_truth"}.get(suffix, f"labels{suffix}")
        label = trees.read(dataset / truth / f"{case}.nii.gz")
        organs = trees.MACT_ORGANS if number > 43 else (1, 3, 4, 5, 6, 7, 11, 14)
        whole, values = trees.volume(organs, shape=trees.MACT_SHAPE, seed=number)
        np.testing.assert_array_equal(image, whole[2:18, 3:15, 0:12])
        expected = np.zeros_like(values)
        for new, value in enumerate((1, 3, 4, 5, 6, 7, 11, 14), start=1):
            expected[values == value] = new
        np.testing.assert_array_equal(label, expected[2:18, 3:15, 0:12])
    flipped = json.loads((dataset / "sfr_convert.json").read_text(encoding="utf-8"))["flipped_labels"]
    assert flipped == {f"{number:04d}": "z" for number in range(2, 44, 2)}


def test_the_crop_keeps_its_place_in_space(mact_tree: Path, tmp_path: Path) -> None:
    case = mact.open_source_dataset(ConversionRequest(mact_tree, 14)).check("0044")
    assert isinstance(case, mact.MACTCase)
    image, _, _ = case.aligned()
    # the box begins at 2, 3, 0 from the right, the front and below, 1 mm apart; the file counts y from the back
    np.testing.assert_allclose(image.affine[:3, 3], [-2, trees.MACT_SHAPE[1] - 1 - 3, 0])


def test_a_label_that_fits_in_two_ways_is_refused() -> None:
    image = np.random.default_rng(0).integers(-500, 500, (8, 8, 8))
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:6, :3, :3] = 6
    image[2:6, 5:, :3] = image[2:6, :3, 5:] = 60
    with pytest.raises(UserError, match="case x does not lie on its image as its header says, and more than one way"):
        mact.find_flip(image, label, Path("label.nii.gz"), "x")
    image[2:6, 5:, :3] = np.random.default_rng(1).integers(-500, 500, (4, 3, 3))
    assert mact.find_flip(image, label, Path("label.nii.gz"), "x") == (2,)


# --- AbdomenCT-1K and ACDC ---


def test_abdomenct_1k_with_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abdomenct_1k, "CASES", 20)
    numbers = [*range(1, 10), *range(395, 405), 801]
    source = trees.abdomenct_1k(tmp_path / "source", numbers, without_mask=(11, 900))
    dataset = tmp_path / "raw" / "AbdomenCT"
    split = convert("AbdomenCT-1K", source, dataset, labelled=3)
    assert split.labelled == ("Case_00001", "Case_00002", "Case_00003")
    assert split.test == ("Case_00404", "Case_00801")
    assert len(split.unlabelled) == 15
    record = json.loads((dataset / "sfr_convert.json").read_text(encoding="utf-8"))
    assert record["images_without_mask"] == ["Case_00011", "Case_00900"]
    (source / "Mask" / "Case_00005.nii.gz").unlink()
    with pytest.raises(UserError, match=r"has 19 masks of 20 \(numbers without one: Case_00005, Case_00010"):
        convert("AbdomenCT-1K", source, tmp_path / "other")
    split = convert("AbdomenCT-1K", source, tmp_path / "other", allow_missing=True)
    assert split.test == ("Case_00801",)


def test_acdc_keeps_the_frames_of_a_patient_together(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "ACDC", (*range(1, 6), 101, 102))
    dataset = tmp_path / "raw" / "ACDC"
    split = convert("ACDC", source, dataset, labelled=2, seed=None, allow_missing=True)
    assert split.labelled == ("patient001_frame01", "patient001_frame09", "patient002_frame01", "patient002_frame10")
    assert (len(split.unlabelled), len(split.test)) == (6, 4)
    assert dataset_json(dataset)["numTraining"] == 4
    assert not [name for name in names(dataset, "imagesTr") if "4d" in name]
    image = sitk.ReadImage(str(dataset / "imagesTs" / "patient101_frame01_0000.nii.gz"))
    assert image.GetSpacing() == (1.5, 1.5, 10.0)


# --- any data set in nnU-Net's layout ---


def test_an_nnunet_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    monkeypatch.setenv("nnUNet_raw", str(raw))
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    make_raw_dataset(
        raw,
        labelled=10,
        unlabelled=2,
        test=0,
        channels=2,
        classes=2,
        labels=regions,
        shape=(4, 5, 6),
        name="Dataset005_X",
    )
    source = PUBLIC_DATASETS["nnunet"].open(ConversionRequest(Path("Dataset005_X"), 4, seed=1))
    dataset = dataset_folder(None, str(source.record["dataset"]))
    assert dataset == raw / "Dataset500_X_4labelled_seed1"
    convert_source(source, dataset, bar=False)
    split = source.split
    assert (len(split.labelled), len(split.test)) == (4, 2)
    assert {"unlabelled_00", "unlabelled_01"} < set(split.unlabelled)
    assert len(split.unlabelled) == 6
    assert names(dataset, "labelsUl_truth") == sorted(f"{case}.nii.gz" for case in split.unlabelled if "train" in case)
    content = dataset_json(dataset)
    assert {key: content[key] for key in ("labels", "numTraining", "regions_class_order")} == {
        "labels": regions, "numTraining": 4, "regions_class_order": [1, 2],
    }  # fmt: skip
    assert content["sfr_convert"]["list"] == "drawn with seed 1"
    assert len(names(dataset, "imagesTr")) == 8
    original = raw / "Dataset005_X" / "imagesTr" / f"{split.test[0]}_0001.nii.gz"
    assert (dataset / "imagesTs" / original.name).read_bytes() == original.read_bytes()
    assert PUBLIC_DATASETS["nnunet"].open(ConversionRequest(Path("5"), 4, seed=1)).split == split
    for name in ("Dataset006_X", "6", str(tmp_path / "Dataset005_X"), "../Dataset005_X", "*"):
        with pytest.raises(
            UserError, match=f"has no such data set: {re.escape(name)}; give SOURCE as name, number or folder"
        ):
            PUBLIC_DATASETS["nnunet"].open(ConversionRequest(Path(name), 4))
    # the data set of this name is found again, and another seed makes another one
    assert dataset_folder(None, str(source.record["dataset"])) == dataset
    with pytest.raises(UserError, match="exists; add --overwrite"):
        convert_source(source, dataset)
    assert dataset_folder(None, "X_4labelled_seed2").name == "Dataset501_X_4labelled_seed2"


def under_the_key_dataset(folder: Path) -> None:
    """Case ``train_00`` is read from files called ``scan``."""
    listed = {
        f"train_0{number}": {
            "images": [f"imagesTr/train_0{number}_0000.tif"], "label": f"labelsTr/train_0{number}.tif"
        }
        for number in range(4)
    }  # fmt: skip
    listed["train_00"] = {"images": ["imagesTr/scan_0000.tif"], "label": "labelsTr/scan.tif"}
    edit_dataset_json(folder, dataset=listed)
    for file in folder.glob("*Tr/train_00*"):
        file.rename(file.with_name(file.name.replace("train_00", "scan")))


def test_files_that_belong_to_a_case_are_renamed_with_it(tmp_path: Path) -> None:
    make_raw_dataset(tmp_path, labelled=4, unlabelled=0, test=0, shape=(6, 8, 7), name="Dataset006_Y")
    turn_into_tiff(tmp_path / "Dataset006_Y")
    under_the_key_dataset(tmp_path / "Dataset006_Y")
    split = convert("nnunet", tmp_path / "Dataset006_Y", tmp_path / "out", labelled=1)
    assert split.labelled == ("train_00",)
    assert names(tmp_path / "out", "imagesTr") == ["train_00.json", "train_00_0000.tif"]
    assert names(tmp_path / "out", "labelsTr") == ["train_00.json", "train_00.tif"]
    label, properties = Tiff3DIO().read_seg(str(tmp_path / "out" / "labelsTr" / "train_00.tif"))
    assert (label.shape, properties["spacing"]) == ((1, 6, 8, 7), SPACING)


def test_voxels_that_a_header_names_keep_their_name(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    headers = []
    for place in ("first", "second"):
        headers.append(tmp_path / place / "scan.mhd")
        headers[-1].parent.mkdir()
        sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkUInt8) + 7, str(headers[-1]))
    nnunet._copy({headers[0]: "a_0000.mhd"}, folder, ".mhd")
    assert sorted(file.name for file in folder.iterdir()) == ["a_0000.mhd", "scan.raw"]
    assert sitk.ReadImage(str(folder / "a_0000.mhd"))[1, 1, 1] == 7
    said = rf"{headers[1].with_suffix('.raw')}: out would have two files of this name"
    with pytest.raises(UserError, match=said):
        nnunet._copy({headers[1]: "b_0000.mhd"}, folder, ".mhd")
    assert len(list(folder.iterdir())) == 2


def test_test_cases_with_a_truth_stay(tmp_path: Path) -> None:
    make_raw_dataset(tmp_path, labelled=4, unlabelled=0, test=2, shape=(4, 5, 6), name="Dataset006_Y")
    folder = tmp_path / "Dataset006_Y"
    (folder / "labelsTs" / "test_01.nii.gz").unlink()
    split = convert("nnunet", folder, tmp_path / "out")
    assert split == Split(("train_00",), ("train_01", "train_02", "train_03"), ("test_00",))
    split = convert("nnunet", folder, tmp_path / "held", test=2)
    assert (split.labelled, split.test) == (("train_00",), ("train_02", "train_03"))
    for labelled in (0, 4):
        with pytest.raises(UserError, match=f"has 4 labelled cases, so --labelled can be from 1 to 3, got {labelled}"):
            convert("nnunet", folder, tmp_path / "refused", labelled=labelled)
    (folder / "imagesTs" / "test_00_0000.nii.gz").rename(folder / "imagesTs" / "train_00_0000.nii.gz")
    (folder / "labelsTs" / "test_00.nii.gz").rename(folder / "labelsTs" / "train_00.nii.gz")
    with pytest.raises(UserError, match="train_00: in two of imagesTr, imagesUl and imagesTs"):
        convert("nnunet", folder, tmp_path / "refused")


def test_the_command_on_an_nnunet_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the issue types it: without a number, by name, with nnUNet_raw alone."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    make_raw_dataset(tmp_path, labelled=7, unlabelled=0, test=0, shape=(4, 5, 6), name="Dataset005_X")
    assert main(["nnunet", "Dataset005_X", "--labelled", "4", "--seed", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{tmp_path / 'Dataset500_X_4labelled_seed1'}: 4 labelled, 2 unlabelled, 1 test",
        "continue with: sfr_plan_and_preprocess -d 500",
    ]
    assert main(["nnunet", "5", "--labelled", "4", "--seed", "1"]) == 1
    assert "Dataset500_X_4labelled_seed1: exists; add --overwrite" in capsys.readouterr().err
    assert main(["nnunet", "5", "--labelled", "4", "--seed", "1", "--overwrite"]) == 0
    with pytest.raises(SystemExit):
        main(["nnunet", "5", "--fold", "0"])
    assert "--fold is no option of nnunet" in capsys.readouterr().err


def test_the_help_says_where_the_data_are_had(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-h"])
    text = capsys.readouterr().out
    for name, known in PUBLIC_DATASETS.items():
        part = " ".join(text[text.index(f"\n{name}: ") :].split("\n\n")[0].split())
        for said in (known.title, known.layout, known.cases, known.obtained, known.disk):
            assert " ".join(said.split()) in part, name
        assert f"(--labelled {known.labelled})" in part


# --- bad input ---


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _relabel(value: int) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        image = load(file)
        voxels = np.asanyarray(image.dataobj).copy()
        voxels[0, 0, 0] = value
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)

    return write


def _move(millimetres: float) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        image = load(file)
        affine = image.affine.copy()
        affine[0, 3] += millimetres
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine), file)

    return write


FIRST = read_lists("BraTS").training[0]
MISTAKES: list[tuple[str, Callable[[Path], object], str]] = [
    (f"HGG/{FIRST}/{FIRST}_t1.nii.gz", Path.unlink, rf"{FIRST}_t1\.nii\.gz: not found; get it"),
    (f"HGG/{FIRST}/{FIRST}_seg.nii.gz", Path.unlink, rf"{FIRST}_seg\.nii\.gz: not found"),
    (f"HGG/{FIRST}/{FIRST}_seg.nii.gz", _cut, rf"{FIRST}_seg\.nii\.gz: .*cannot be read"),
    (f"HGG/{FIRST}/{FIRST}_flair.nii.gz", _cut, rf"{FIRST}_flair\.nii\.gz: .*cannot be read"),
    (f"HGG/{FIRST}/{FIRST}_seg.nii.gz", _relabel(3), rf"case {FIRST}: its label has the value 3, where only 0 \(back"),
    (f"HGG/{FIRST}/{FIRST}_t1.nii.gz", _move(1), rf"_t1\.nii\.gz: case {FIRST} lies elsewhere than {FIRST}_flair"),
    (
        f"HGG/{FIRST}/{FIRST}_seg.nii.gz",
        _move(0.5),
        rf"_seg\.nii\.gz: case {FIRST} lies elsewhere .* up to 0\.5 v",
    ),
    (f"HGG/{FIRST}/{FIRST}_t1.nii.gz", lambda file: file.write_text("x"), r"_t1\.nii\.gz: cannot be read as NIfTI"),
    (f"HGG/{FIRST}", lambda folder: shutil.copytree(folder, folder.parents[1] / "LGG" / FIRST), r"lies in HGG too"),
    (
        f"HGG/{FIRST}/{FIRST}_t1.nii.gz",
        lambda file: trees.write(file.with_name(f"{FIRST}_t1.nii"), np.ones((2, 2, 2))),
        r"_t1\.nii: lies there as .*_t1\.nii\.gz too",
    ),
    (f"HGG/{FIRST}", shutil.rmtree, rf"1 of the 1 cases to label are missing: {FIRST}"),
]


@pytest.mark.parametrize(("where", "damage", "said"), MISTAKES)
def test_a_damaged_source_is_one_line_and_leaves_nothing(
    where: str, damage: Callable[[Path], object], said: str, brats: Path, tmp_path: Path
) -> None:
    damage(brats / where)
    with pytest.raises(UserError, match=said) as caught:
        convert("BraTS", brats, tmp_path / "raw" / "BraTS", allow_missing=True, channels=tuple(CHANNELS))
    assert "\n" not in str(caught.value)
    assert FIRST in str(caught.value)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("name", [name for name in PUBLIC_DATASETS if name != "nnunet"])
def test_a_folder_of_another_data_set(name: str, tmp_path: Path) -> None:
    for other, make in {
        "BTCV": lambda folder: trees.btcv(folder, read_lists("BTCV").all[:2]),
        "ACDC": lambda folder: trees.acdc(folder, (1, 2)),
        "BraTS": lambda folder: trees.brats(folder, ("BraTS19_nowhere_1",)),
    }.items():
        if name == other:
            continue
        source = make(tmp_path / other)
        with pytest.raises(UserError, match=r"check SOURCE|has no cropping\.csv"):
            convert(name, source, tmp_path / "raw" / name)
    assert not (tmp_path / "raw").exists()


def test_missing_and_too_few_cases(tmp_path: Path) -> None:
    lists = read_lists("BTCV")
    source = trees.btcv(tmp_path / "Abdomen", lists.all[1:], organs=1)
    with pytest.raises(UserError, match=f"1 of 30 cases are missing: {lists.all[0]}; .*--allow-missing"):
        convert("BTCV", source, tmp_path / "raw", labelled=7)
    with pytest.raises(UserError, match="--labelled must be from 1 to 17 with the standard lists, got 18"):
        convert("BTCV", source, tmp_path / "raw", labelled=18)
    (source / "RawData/Training/label" / f"label{lists.all[1]}.nii.gz").unlink()
    with pytest.raises(UserError, match=rf"label{lists.all[1]}\.nii\.gz: not found"):
        convert("BTCV", source, tmp_path / "raw", labelled=1, seed=2, allow_missing=True)
    assert not (tmp_path / "raw").exists()


def test_mistakes_of_mact(tmp_path: Path) -> None:
    source = trees.mact(tmp_path / "mact", (2, 20, 44))
    label = source / "labels" / "label_tcia_multiorgan" / "label0021.nii.gz"
    table = source / "cropping.csv"
    good = table.read_text(encoding="utf-8")

    def refused(said: str) -> None:
        with pytest.raises(UserError, match=said):
            convert("MACT", source, tmp_path / "raw", allow_missing=True, seed=_seed_of("0020"))

    table.write_text(good.replace("extent_inf", "extent_low"))
    refused(r"cropping\.csv: has no column extent_inf")
    table.write_text(good.replace("TCIA,21,2,18", "TCIA,21,2,21"))
    refused(r"case 0020: cropping\.csv has extent_left 2 and extent_right 21, but the image has 20 voxels there")
    table.write_text(good)
    trees.write(label, np.zeros((3, 3, 3), np.uint8), trees.LPS)
    refused(r"label0021\.nii\.gz: case 0020 has 3 x 3 x 3 voxels, but its image has 20 x 16 x 14")
    (source / "Pancreas-CT" / "PANCREAS_0003" / "study" / "series" / "1-000.dcm").write_text("x")
    shutil.copy(source / "Pancreas-CT" / "PANCREAS_0021.nii.gz", source / "PANCREAS_0021.nii.gz")
    refused(r"PANCREAS_0021\.nii\.gz: 0021 lies there twice")


def _seed_of(case: str) -> int:
    """A seed that draws a case as the one labelled."""
    return next(seed for seed in range(500) if choose_labelled(fold_lists(0).training, 1, seed) == (case,))


# --- what is checked once ---


class StoppedError(Exception):
    pass


def test_a_stopped_conversion_does_not_read_again_what_it_had(
    brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    read: list[str] = []
    check = trees_check()

    def counted(self: Any) -> str | None:
        if len(read) == 3:
            raise StoppedError
        read.append(self.case)
        return check(self)

    monkeypatch.setattr("nnunet_sfr.conversion.nifti_dataset.NiftiCheck.problem", counted)
    with pytest.raises(StoppedError):
        convert("BraTS", brats, tmp_path / "raw" / "BraTS", allow_missing=True)
    assert not (tmp_path / "raw").exists()
    first, read[:] = list(read), []
    case = first[1]
    _move(0)(next(brats.rglob(f"{case}_seg.nii.gz")))  # this file has changed since
    monkeypatch.setattr("nnunet_sfr.conversion.nifti_dataset.NiftiCheck.problem", lambda self: read.append(self.case))
    convert("BraTS", brats, tmp_path / "raw" / "BraTS", allow_missing=True)
    assert case in read
    assert len(read) == 5 - 2
    assert list(cache.iterdir()) == []


def trees_check() -> Callable[[Any], str | None]:
    from nnunet_sfr.conversion.nifti_dataset import NiftiCheck

    return NiftiCheck.problem


def test_a_full_disk_is_seen_before_writing(brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"GB are needed and 0\.0 GB free"):
        convert("BraTS", brats, tmp_path / "raw" / "BraTS", allow_missing=True)
    assert not (tmp_path / "raw").exists()


def test_numbers_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    (tmp_path / "Dataset500_Heart").mkdir()
    assert dataset_folder(None, "BTCV").name == "Dataset501_BTCV"
    (tmp_path / "Dataset007_BTCV").mkdir()
    assert dataset_folder(None, "BTCV").name == "Dataset007_BTCV"
    (tmp_path / "Dataset008_BTCV").mkdir()
    with pytest.raises(UserError, match=r"Dataset007_BTCV and Dataset008_BTCV: have the same name"):
        dataset_folder(None, "BTCV")
    with pytest.raises(UserError, match="has the number 500 already"):
        dataset_folder(500, "BTCV")


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_data_sets_without_raw_data_keep_their_numbers(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv(variable, str(tmp_path / "others"))
    (tmp_path / "others" / "Dataset500_Heart").mkdir(parents=True)
    assert dataset_folder(None, "BTCV") == tmp_path / "raw" / "Dataset501_BTCV"
    assert dataset_folder(None, "Heart") == dataset_folder(500, "Heart") == tmp_path / "raw" / "Dataset500_Heart"
    with pytest.raises(UserError, match=r"others.Dataset500_Heart: has the number 500 already"):
        dataset_folder(500, "BTCV")


def test_a_data_set_that_was_set_aside_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the new one was in its place."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    dataset = tmp_path / "Dataset500_Heart"
    dataset.mkdir()
    set_aside(dataset)
    assert not dataset.exists()
    assert dataset_folder(None, "Heart") == dataset_folder(500, "Heart") == dataset
    assert dataset_folder(None, "BTCV").name == "Dataset501_BTCV"
    with pytest.raises(UserError, match=r"Dataset500_Heart: has the number 500 already; choose another with -d$"):
        dataset_folder(500, "BTCV")


def test_a_data_set_that_came_in_between_is_not_replaced(
    brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "raw" / "BraTS"
    write_label = NiftiDataset.write_label

    def slowly(source: NiftiDataset, case: str, folder: Path) -> None:
        write_label(source, case, folder)
        dataset.mkdir(exist_ok=True)
        (dataset / "sfr_convert.json").write_text("of another conversion")

    monkeypatch.setattr(NiftiDataset, "write_label", slowly)
    with pytest.raises(UserError, match="exists; add --overwrite"):
        convert("BraTS", brats, dataset, allow_missing=True)
    assert [file.name for file in dataset.parent.rglob("*")] == ["BraTS", "sfr_convert.json"]


def replaced(brats: Path, dataset: Path, stopping: Any) -> None:
    """Convert with --overwrite over a data set that has one more file, while ``os.rename`` or the like stops it."""
    convert("BraTS", brats, dataset, allow_missing=True)
    (dataset / "old").touch()
    source = PUBLIC_DATASETS["BraTS"].open(ConversionRequest(brats, 1, allow_missing=True))
    with stopping, pytest.raises(KeyboardInterrupt):
        convert_source(source, dataset, overwrite=True, bar=False)


def stop(module: Any, name: str, error: type[BaseException] = KeyboardInterrupt) -> Any:
    return mock.patch.object(module, name, side_effect=error)


def test_stopped_while_it_replaces_a_data_set_one_of_the_two_is_whole(brats: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "BraTS"
    # between the two renamings: the old one is put back
    replaced(brats, dataset, stop(os, "replace"))
    assert [entry.name for entry in dataset.parent.iterdir()] == ["BraTS"]
    assert (dataset / "old").is_file()
    assert len(names(dataset, "imagesTr")) == 1
    shutil.rmtree(dataset)
    # while the old one is removed: the new one is there, and the next call removes the rest
    replaced(brats, dataset, stop(shutil, "rmtree"))
    assert len(names(dataset, "imagesTr")) == 1
    assert not (dataset / "old").exists()
    with pytest.raises(UserError, match="exists; add --overwrite"):
        convert("BraTS", brats, dataset, allow_missing=True)
    assert [entry.name for entry in dataset.parent.iterdir()] == ["BraTS"]


def test_killed_between_the_renamings_the_next_call_puts_the_old_one_back(brats: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "BraTS"
    convert("BraTS", brats, dataset, allow_missing=True)
    set_aside(dataset)
    with pytest.raises(UserError, match="exists; add --overwrite"):
        convert("BraTS", brats, dataset, allow_missing=True)
    assert [entry.name for entry in dataset.parent.iterdir()] == ["BraTS"]


def test_a_link_to_a_data_set_is_refused_before_anything_is_read(brats: Path, tmp_path: Path) -> None:
    there, dataset = tmp_path / "other disk", tmp_path / "raw" / "BraTS"
    convert("BraTS", brats, there, allow_missing=True)
    dataset.parent.mkdir()
    dataset.symlink_to(there)
    source = PUBLIC_DATASETS["BraTS"].open(ConversionRequest(brats, 1, allow_missing=True))
    reading = stop(raw_dataset, "check_all", AssertionError)
    with reading, pytest.raises(UserError, match="BraTS: is a link, which sfr_convert does not replace"):
        convert_source(source, dataset, overwrite=True, bar=False)
    assert dataset.is_symlink()


def test_the_number_of_a_conversion_at_work_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with replacing(dataset_folder(None, "Heart")) as temporary:
        temporary.mkdir()
        assert dataset_folder(None, "BTCV").name == "Dataset501_BTCV"
        assert dataset_folder(None, "Heart").name == "Dataset500_Heart"
        with pytest.raises(UserError, match="Dataset500_Heart: has the number 500 already"):
            dataset_folder(500, "BTCV")
    shutil.rmtree(tmp_path / "Dataset500_Heart")
    temporary.mkdir()
    assert dataset_folder(None, "BTCV").name == "Dataset500_BTCV", "what a stopped call left takes no number"


def test_of_two_conversions_that_chose_one_number_the_later_is_refused(
    brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    dataset = dataset_folder(None, "BraTS")
    other = tmp_path / "raw" / ".elsewhere-7.Dataset500_Heart"
    other.mkdir(parents=True)
    write_label, refused = NiftiDataset.write_label, "Heart: has the number 500 already; choose another with -d"
    stopped = f"{refused}, or delete this folder if the sfr_convert that began it has ended"
    with stop(NiftiDataset, "write_images", AssertionError), pytest.raises(UserError, match=stopped):
        convert("BraTS", brats, dataset, allow_missing=True)
    other.rmdir()
    done = tmp_path / "raw" / "Dataset500_Heart"

    def slowly(source: NiftiDataset, case: str, folder: Path) -> None:
        write_label(source, case, folder)
        done.mkdir(exist_ok=True)

    monkeypatch.setattr(NiftiDataset, "write_label", slowly)
    with pytest.raises(UserError, match=refused):
        convert("BraTS", brats, dataset, allow_missing=True)
    assert [entry.name for entry in done.parent.iterdir()] == [done.name]


def test_lists_without_an_unlabelled_case() -> None:
    from nnunet_sfr.conversion.lists import split_by_lists

    lists = CaseLists(("a", "b", "c"), ("d",))
    with pytest.raises(UserError, match="leaves no unlabelled case with --labelled 2"):
        split_by_lists(lists, {"a", "b", "d"}, ConversionRequest(Path("x"), 2, allow_missing=True))
