"""nnU-Net's fingerprint with the unlabelled images joined in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

from nnunet_sfr.data.checks import check_cases
from nnunet_sfr.data.raw_cases import RawDataset, list_cases
from nnunet_sfr.errors import UserError
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.fingerprint import make_fingerprint, update_fingerprint
from tests.tiny_dataset import NAME, make_raw_dataset, write_image
from tests.tiny_project import nnunet_folders

SAMPLES = 6000


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(fingerprint, "FOREGROUND_SAMPLES", SAMPLES)
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", channels=2, classes=2, shape=(8, 9, 10), spacing=(2.0, 1.0, 1.5))
        yield tmp_path / "nnUNet_raw" / NAME


def fingerprint_file(raw: Path) -> Path:
    return raw.parent.parent / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json"


def labelled_alone(raw: RawDataset) -> RawDataset:
    return RawDataset(raw.folder, raw.dataset_json, raw.labelled, ())


def test_labelled_cases_alone_give_nnunets_fingerprint(raw: Path) -> None:
    """Guards the one piece of nnU-Net that is written again: numbers and keys as its extractor writes them."""
    facts = check_cases(labelled_alone(list_cases(raw)), samples_per_case=SAMPLES // 3, processes=1)
    ours = make_fingerprint(facts)
    extractor = DatasetFingerprintExtractor(NAME, num_processes=1)
    assert extractor.num_foreground_voxels_for_intensitystats == 100_000_000
    extractor.num_foreground_voxels_for_intensitystats = SAMPLES
    extractor.run(overwrite_existing=True)
    assert json.loads(json.dumps(ours)) == json.loads(fingerprint_file(raw).read_text(encoding="utf-8"))


def test_unlabelled_cases_join_geometry_but_never_intensities(raw: Path) -> None:
    """The unlabelled images are far brighter, coarser and mostly empty: only the intensities may not notice."""
    image = np.zeros((12, 12, 12), np.float32)
    image[3:9, :, :] = 1e6
    for index in range(5):
        for channel in range(2):
            write_image(raw / f"imagesUl/unlabelled_{index:02d}_000{channel}.nii.gz", image, spacing=(3.0, 3.0, 3.0))
    listed = list_cases(raw)
    alone = make_fingerprint(check_cases(labelled_alone(listed), samples_per_case=SAMPLES // 3, processes=1))
    joined = update_fingerprint(fingerprint_file(raw), listed, processes=1)
    key = "foreground_intensity_properties_per_channel"
    assert joined[key] == alone[key]
    assert joined["spacings"] == [[2.0, 1.0, 1.5]] * 3 + [[3.0, 3.0, 3.0]] * 5
    assert joined["shapes_after_crop"][3:] == [[6, 12, 12]] * 5
    assert np.median(alone["spacings"], axis=0).tolist() == [2.0, 1.0, 1.5]
    assert np.median(joined["spacings"], axis=0).tolist() == [3.0, 3.0, 3.0]
    assert alone["median_relative_size_after_cropping"] == 1.0
    assert joined["median_relative_size_after_cropping"] == 0.5
    assert json.loads(fingerprint_file(raw).read_text(encoding="utf-8")) == joined


def change_json(raw: Path, **parts: dict[str, object]) -> None:
    """Join entries into parts of dataset.json."""
    file = raw / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **{key: {**content[key], **part} for key, part in parts.items()}}))


def test_what_is_not_annotated_is_no_foreground(raw: Path) -> None:
    """nnU-Net's extractor counts the ignore label, most of which is background."""
    change_json(raw, labels={"ignore": 3})
    before = make_fingerprint(check_cases(labelled_alone(list_cases(raw)), samples_per_case=SAMPLES, processes=1))
    labels = sorted((raw / "labelsTr").iterdir())
    for label in labels:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label)))
        write_image(label, np.where(values == 0, 3, values).astype(np.uint8), spacing=(2.0, 1.0, 1.5))
    after = make_fingerprint(check_cases(labelled_alone(list_cases(raw)), samples_per_case=SAMPLES, processes=1))
    assert after == before
    for label in labels:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label)))
        write_image(label, np.full_like(values, 3), spacing=(2.0, 1.0, 1.5))
    with pytest.raises(UserError, match="no label has any foreground voxel"):
        check_cases(labelled_alone(list_cases(raw)), samples_per_case=SAMPLES, processes=1)


def test_bytes_are_asked_for_where_nnunet_asserts_them(raw: Path) -> None:
    change_json(raw, channel_names={"1": "rgb_to_0_1"})
    for image in raw.glob("images*/*_0001.nii.gz"):
        shape = SimpleITK.ReadImage(str(image)).GetSize()[::-1]
        ramp = np.linspace(0, 255, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        write_image(image, ramp, spacing=(2.0, 1.0, 1.5))
    labelled = labelled_alone(list_cases(raw))
    check_cases(labelled, samples_per_case=10, processes=1)
    image = raw / "imagesTr/train_01_0001.nii.gz"
    ramp = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(image)))
    write_image(image, ramp + 1, spacing=(2.0, 1.0, 1.5))
    with pytest.raises(UserError, match=r"train_01_0000.nii.gz: channel 1 of case train_01 has values from 1 to 256,"):
        check_cases(labelled, samples_per_case=10, processes=1)


def test_a_fingerprint_is_kept_until_a_file_changes(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fingerprint_file(raw)
    first = update_fingerprint(file, list_cases(raw), processes=1)
    written = file.stat().st_mtime_ns
    assert update_fingerprint(file, list_cases(raw), processes=1) == first
    assert file.stat().st_mtime_ns == written
    assert "no image changed" in capsys.readouterr().out

    for channel in range(2):
        source = raw / f"imagesUl/unlabelled_00_000{channel}.nii.gz"
        shutil.copy(source, source.with_name(f"unlabelled_09_000{channel}.nii.gz"))
    assert len(update_fingerprint(file, list_cases(raw), processes=1)["spacings"]) == 6


def test_a_copied_data_set_has_the_same_fingerprint(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files have other times, and are read once more to see that they are the same."""
    file = fingerprint_file(raw)
    first = update_fingerprint(file, list_cases(raw), processes=1)
    image = next((raw / "imagesTr").iterdir())
    os.utime(image, ns=(1, 1))
    monkeypatch.setattr(fingerprint, "check_cases", None)
    assert update_fingerprint(file, list_cases(raw), processes=1) == first
    kept = json.loads(file.with_name("sfr_raw_files.json").read_text(encoding="utf-8"))
    assert list(kept) == [f"imagesTr/{image.name}"], "files that were just written are not trusted"

    image.write_bytes(image.read_bytes()[:-1] + b"x")
    os.utime(image, ns=(1, 2))
    with pytest.raises(TypeError, match="not callable"):
        update_fingerprint(file, list_cases(raw), processes=1)


def test_the_fingerprint_of_an_earlier_version_is_kept(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knew the files by their times of change."""
    file = fingerprint_file(raw)
    first = update_fingerprint(file, list_cases(raw), processes=1)
    first["nnunet_sfr"]["stamp"] = list_cases(raw).stamp_of_times()
    file.write_text(json.dumps(first))
    monkeypatch.setattr(fingerprint, "check_cases", None)
    assert update_fingerprint(file, list_cases(raw), processes=1) == first


def test_a_fingerprint_of_nnunet_is_made_anew(raw: Path) -> None:
    """nnUNetv2_extract_fingerprint --clean writes one of the labelled cases alone."""
    file = fingerprint_file(raw)
    update_fingerprint(file, list_cases(raw), processes=1)
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["nnunet_sfr"]
    content["spacings"] = content["spacings"][:3]
    file.write_text(json.dumps(content))
    assert len(update_fingerprint(file, list_cases(raw), processes=1)["spacings"]) == 5


def test_clean_makes_it_anew(raw: Path) -> None:
    file = fingerprint_file(raw)
    first = update_fingerprint(file, list_cases(raw), processes=1)
    file.write_text(json.dumps({**first, "spacings": []}))
    assert update_fingerprint(file, list_cases(raw), processes=1)["spacings"] == []
    assert update_fingerprint(file, list_cases(raw), processes=1, clean=True) == first
