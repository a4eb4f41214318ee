"""What names tell of a raw data set: counts, missing labels, cases of two sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunet_sfr.doctor.raw_folders import check_names, read_folders
from nnunet_sfr.errors import UserError
from tests.doctor.levels import levels, only
from tests.tiff_dataset import edit_dataset_json
from tests.tiny_dataset import NAME, make_raw_dataset


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    make_raw_dataset(tmp_path, labelled=3, unlabelled=2, test=1, channels=2, shape=(4, 5, 6))
    return tmp_path / NAME


def move_case(raw: Path, source: str, target: str, identifier: str, name: str) -> None:
    (raw / target).mkdir(exist_ok=True)
    for channel in range(2):
        shutil.copy(raw / source / f"{identifier}_{channel:04d}.nii.gz", raw / target / f"{name}_{channel:04d}.nii.gz")


def test_a_sound_data_set(raw: Path) -> None:
    (raw / "imagesTr" / ".DS_Store").write_text("")
    (finding,) = check_names(read_folders(raw))
    assert (finding.level.value, finding.text) == ("ok", "3 labelled, 2 unlabelled, 1 test")


def test_files_are_listed_by_set_and_case(raw: Path) -> None:
    folders = read_folders(raw)
    assert len(list(folders.files())) == 2 * (3 + 2 + 1)
    assert [file.name for file in folders.sets["imagesTs"]["test_00"]] == [
        "test_00_0000.nii.gz",
        "test_00_0001.nii.gz",
    ]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (["x"], "dataset: expected an object, got a list"),
        ({"a": {"images": ["a_0000.nii.gz"]}}, "the key dataset.a.label is missing"),
        ({"a": {"images": [1], "label": "a.nii.gz"}}, r"dataset.a.images\[0\]: expected text, got 1"),
    ],
)
def test_cases_that_are_no_cases(cases: object, said: str, raw: Path) -> None:
    edit_dataset_json(raw, dataset=cases)
    with pytest.raises(UserError, match=rf"dataset\.json: {said}; write it as"):
        read_folders(raw)


def test_missing_labels(raw: Path) -> None:
    for identifier in ("train_00", "train_02"):
        (raw / "labelsTr" / f"{identifier}.nii.gz").unlink()
    finding = only(check_names(read_folders(raw)), "problem")
    assert finding.subject == "labels"
    assert finding.text.startswith("2 of 3 are missing: ")
    assert [Path(file).name for file in finding.details] == ["train_00.nii.gz", "train_02.nii.gz"]


@pytest.mark.parametrize(
    ("source", "identifier", "target", "pair", "wrong"),
    [
        ("imagesTs", "test_00", "imagesUl", ("imagesUl", "imagesTs"), "imagesUl"),
        ("imagesTr", "train_01", "imagesTs", ("imagesTr", "imagesTs"), "imagesTr"),
    ],
)
def test_a_case_that_is_in_test_too(
    raw: Path, source: str, identifier: str, target: str, pair: tuple[str, str], wrong: str
) -> None:
    move_case(raw, source, target, identifier, identifier)
    finding = only(check_names(read_folders(raw)), "problem")
    assert finding.text == f"1 in {pair[0]} and in {pair[1]}: {identifier}"
    assert finding.remedy.startswith(f"remove it from {wrong}")


def test_a_labelled_case_that_is_unlabelled_too_is_said_once(raw: Path) -> None:
    move_case(raw, "imagesTr", "imagesUl", "train_01", "train_01")
    assert only(check_names(read_folders(raw)), "problem").text == "1 in imagesTr and in imagesUl: train_01"


def test_what_planning_would_refuse(raw: Path) -> None:
    (raw / "imagesTr" / "train_00_0000.nii.gz").unlink()
    assert "this channel of case train_00 is missing" in only(check_names(read_folders(raw)), "problem").text


def test_no_unlabelled_cases(raw: Path) -> None:
    shutil.rmtree(raw / "imagesUl")
    findings = check_names(read_folders(raw))
    assert findings[0].text == "3 labelled, 0 unlabelled, 1 test"
    assert levels(findings) == ["note", "problem"]


def test_labelled_cases_that_dataset_json_names(raw: Path) -> None:
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    images = [f"imagesTr/train_00_{channel:04d}.nii.gz" for channel in range(2)]
    content["dataset"] = {
        "first": {"images": images, "label": "labelsTr/train_00.nii.gz"},
        "second": {"images": images, "label": "labelsTr/gone.nii.gz"},
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    folders = read_folders(raw)
    assert set(folders.sets["imagesTr"]) == {"first", "second"}
    assert only(check_names(folders), "problem").details == (str(raw / "labelsTr" / "gone.nii.gz"),)


def test_a_data_set_without_its_description(raw: Path) -> None:
    (raw / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="file_ending is missing"):
        read_folders(raw)
    (raw / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json: not found"):
        read_folders(raw)
