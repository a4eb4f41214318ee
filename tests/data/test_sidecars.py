"""Files that belong to an image or a label map: found, read, checked, and part of what a case is made from."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_sfr.data.checks import check_cases
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.data.sidecars import sidecars, spacing_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from tests.tiff_dataset import edit_dataset_json, turn_into_tiff
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import nnunet_folders, plan_project


@pytest.fixture
def tiff(tmp_path: Path) -> Iterator[Path]:
    """A raw data set of TIFF volumes in nnU-Net's folders."""
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=2, unlabelled=2)
        raw = tmp_path / "nnUNet_raw" / NAME
        turn_into_tiff(raw)
        yield raw


def test_a_spacing_file_belongs_to_its_image(tiff: Path) -> None:
    listed = list_cases(tiff)
    assert listed.labelled[0].sidecars == (tiff / "imagesTr/train_00.json",)
    assert listed.labelled[0].label_sidecars == (tiff / "labelsTr/train_00.json",)
    assert listed.unlabelled[1].sidecars == (tiff / "imagesUl/unlabelled_01.json",)
    facts = check_cases(listed, samples_per_case=10, processes=1)
    assert {case.spacing for case in facts.values()} == {(3.0, 1.0, 1.0)}
    before = listed.stamp()
    (tiff / "imagesUl/unlabelled_01.json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))
    assert list_cases(tiff).stamp() != before


SPACING_MISTAKES = {
    "imagesUl/unlabelled_01.json": (None, "not found, though other images have such a file"),
    "labelsTr/train_01.json": (None, "imagesTr/train_01.json there, or nnU-Net takes 1 mm for the label"),
    "imagesTr/train_00.json": ("{", "cannot be read as JSON"),
    "imagesUl/unlabelled_00.json": ("[]", "expected an object, got a list"),
    "imagesTr/train_01.json": ('{"spacing": [1, 1]}', "is [1, 1]; write"),
    "labelsTr/train_00.json": ('{"spacing": [2, 1, 1]}', ""),
}


@pytest.mark.parametrize("name", list(SPACING_MISTAKES))
def test_a_spacing_file_that_is_wrong_is_named(tiff: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = SPACING_MISTAKES[name]
    (tiff / name).unlink() if content is None else (tiff / name).write_text(content)
    with pytest.raises(UserError) as error:
        check_cases(list_cases(tiff), samples_per_case=10, processes=1)
    file = tiff / "labelsTr/train_00.tif" if name == "labelsTr/train_00.json" else tiff / name
    assert str(error.value).startswith(f"{file}:")
    assert message in str(error.value)
    assert "WARNING" not in capfd.readouterr().out


@pytest.mark.parametrize("spacing", ["[0, 1, 1]", "[NaN, 1, 1]", "[Infinity, 1, 1]", '["1", 1, 1]', "[-1, 1, 1]", "2"])
def test_a_spacing_that_is_none(tiff: Path, spacing: str) -> None:
    file = tiff / "imagesUl/unlabelled_00.json"
    file.write_text(f'{{"spacing": {spacing}}}')
    with pytest.raises(UserError, match=f"^{file}: .*spacing"):
        check_cases(list_cases(tiff), samples_per_case=10, processes=1)


def test_volumes_without_any_spacing_file_are_said_to_have_1_mm(tiff: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for file in tiff.glob("*/*.json"):
        file.unlink()
    facts = check_cases(list_cases(tiff), samples_per_case=10, processes=1)
    assert facts["unlabelled_00"].spacing == (1.0, 1.0, 1.0)
    printed = capfd.readouterr().out
    assert "No image has a file with its spacing, as train_00.json beside train_00_0000.tif; nnU-Net takes 1" in printed
    assert "WARNING" not in printed


def test_a_link_to_nothing_is_named(tiff: Path) -> None:
    for name in ("imagesUl/unlabelled_00.json", "labelsTr/train_00.json"):
        content = (tiff / name).read_text(encoding="utf-8")
        (tiff / name).unlink()
        (tiff / name).symlink_to("moved.json")
        with pytest.raises(UserError, match=f"^{tiff / name}: a link to moved.json, which is not there"):
            list_cases(tiff)
        (tiff / name).unlink()
        (tiff / name).write_text(content)


def test_preprocessing_knows_the_spacing_files(tiff: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = plan_project()
    assert (dataset.paths.preprocessed / "gt_segmentations/train_00.json").is_file()
    assert inputs(dataset) == ["unlabelled_00_0000.tif", "unlabelled_00.json"]
    (tiff / "imagesUl/unlabelled_00.json").write_text(json.dumps({"spacing": [3.0, 1.0, 2.0]}))
    plan_project()
    printed = capfd.readouterr()
    assert "1 cases made, 3 kept" in printed.out or "4 cases made" in printed.out
    assert "WARNING" not in printed.out
    assert "Traceback" not in printed.err, "nnU-Net prints one for the 2D reader that it tries first"


def inputs(dataset: SFRDataset) -> list[str]:
    properties = pickle.loads((dataset.paths.unlabelled / "unlabelled_00.pkl").read_bytes())
    return [name for name, _, _ in properties["nnunet_sfr"]["inputs"]]


def test_what_converters_write_beside_other_formats_is_let_be(tmp_path: Path) -> None:
    make_raw_dataset(tmp_path, labelled=1, unlabelled=1)
    raw = tmp_path / NAME
    for name in ("unlabelled_00.json", "unlabelled_00_0000.json"):
        (raw / "imagesUl" / name).write_text("{}")
    with nnunet_folders(tmp_path):
        names = [file.name for file in list_cases(raw).unlabelled[0].sidecars]
    assert names == ["unlabelled_00.json", "unlabelled_00_0000.json"]


@pytest.mark.parametrize(("ending", "beside"), [(".mhd", ".raw"), (".nhdr", ".raw"), (".hdr", ".img")])
def test_voxels_beside_their_header(tmp_path: Path, ending: str, beside: str) -> None:
    file = tmp_path / f"case_0000{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(file))
    assert sidecars([file], ending) == (tmp_path / f"case_0000{beside}",)


def test_cases_of_headers_and_voxels(tmp_path: Path) -> None:
    """nnU-Net reads them where dataset.json names the reader."""
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=1, unlabelled=1)
        raw = tmp_path / "nnUNet_raw" / NAME
        for file in sorted(raw.glob("*/*.nii.gz")):
            header = file.with_name(f"{file.name.removesuffix('.nii.gz')}.mhd")
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(header))
            file.unlink()
        edit_dataset_json(raw, file_ending=".mhd", overwrite_image_reader_writer="SimpleITKIO")
        listed = list_cases(raw)
        assert [file.name for file in listed.unlabelled[0].files] == [
            "unlabelled_00_0000.mhd",
            "unlabelled_00_0000.raw",
        ]
        assert set(check_cases(listed, samples_per_case=10, processes=1)) == {"train_00", "unlabelled_00"}
        before = listed.stamp()
        voxels = raw / "imagesUl/unlabelled_00_0000.raw"
        voxels.write_bytes(voxels.read_bytes()[:-1] + b"x")
        assert list_cases(raw).stamp() != before


def test_an_nrrd_file_with_its_voxels_has_no_other(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(file))
    assert sidecars([file], ".nrrd") == ()


def test_the_number_in_the_name_of_a_label_map_is_no_channel() -> None:
    assert spacing_file(Path("scan_0007.tif"), ".tif", is_label=True) == Path("scan_0007.json")
    assert spacing_file(Path("scan_0007_0000.tif"), ".tif", is_label=False) == Path("scan_0007.json")
