"""Copies of images are found by their voxels, whatever they are called and however they are stored."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.doctor.findings import Finding
from nnunet_sfr.doctor.raw_folders import read_folders
from nnunet_sfr.doctor.same_images import check_same_images
from tests.doctor.levels import only
from tests.tiny_dataset import NAME, make_raw_dataset, write_image


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Cases 0 of all sets are of one size, and cases 1 of another; all have voxels of their own."""
    make_raw_dataset(tmp_path, labelled=2, unlabelled=2, test=2, shape=(4, 5, 6))
    return tmp_path / NAME


def check(raw: Path) -> list[Finding]:
    return check_same_images(read_folders(raw))


def store_anew(source: Path, target: Path) -> None:
    """Other type of number, other compression, other bytes; the same voxels."""
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(source)), SimpleITK.sitkFloat64)
    SimpleITK.WriteImage(image, str(target))
    target.write_bytes(gzip.compress(gzip.decompress(target.read_bytes()), compresslevel=1))
    assert target.read_bytes() != source.read_bytes()


def test_images_of_equal_size_are_no_copies(raw: Path) -> None:
    (finding,) = check(raw)
    assert (finding.level.value, finding.text.split(" is ")[0]) == ("ok", "none of the 6 images")


def test_a_training_image_renamed_and_recompressed_into_test(raw: Path) -> None:
    store_anew(raw / "imagesTr" / "train_01_0000.nii.gz", raw / "imagesTs" / "patient_7_0000.nii.gz")
    finding = only(check(raw), "problem")
    assert (
        finding.text == "1 of imagesTr in imagesTs too: imagesTr/train_01_0000.nii.gz = imagesTs/patient_7_0000.nii.gz"
    )
    assert finding.remedy.startswith("remove them from imagesTr or imagesTs")


@pytest.mark.parametrize(
    ("source", "target", "level", "said"),
    [
        ("imagesTs/test_00", "imagesUl", "problem", "1 of imagesUl in imagesTs too"),
        ("imagesTr/train_00", "imagesUl", "problem", "1 of imagesTr in imagesUl too"),
        ("imagesTr/train_00", "imagesTr", "problem", "1 twice in imagesTr"),
        ("imagesUl/unlabelled_01", "imagesUl", "note", "1 twice in imagesUl"),
        ("imagesTs/test_01", "imagesTs", "note", "1 twice in imagesTs"),
    ],
)
def test_a_copy_between_and_within_sets(raw: Path, source: str, target: str, level: str, said: str) -> None:
    shutil.copy(raw / f"{source}_0000.nii.gz", raw / target / "copy_0000.nii.gz")
    assert only(check(raw), level).text.startswith(said)


def test_one_changed_voxel_makes_another_image(raw: Path) -> None:
    file = raw / "imagesTr" / "train_00_0000.nii.gz"
    image: Any = nibabel.load(file)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] += 1
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), raw / "imagesTs" / "other_0000.nii.gz")
    assert [finding.level.value for finding in check(raw)] == ["ok"]


def test_a_channel_in_common_is_enough_and_is_said_once_for_a_case(tmp_path: Path) -> None:
    make_raw_dataset(tmp_path, labelled=1, unlabelled=1, test=1, channels=2, shape=(4, 5, 6))
    raw = tmp_path / NAME
    for channel in (0, 1):
        shutil.copy(raw / "imagesTs" / f"test_00_{channel:04d}.nii.gz", raw / "imagesUl" / f"x_{channel:04d}.nii.gz")
    assert only(check(raw), "problem").details == ("imagesUl/x_0000.nii.gz = imagesTs/test_00_0000.nii.gz",)


def test_empty_channels_are_no_copies_of_each_other(tmp_path: Path) -> None:
    make_raw_dataset(tmp_path, labelled=1, unlabelled=1, test=1, channels=2, shape=(4, 5, 6))
    raw = tmp_path / NAME
    for file in raw.glob("images*/*_0001.nii.gz"):
        write_image(file, np.zeros((4, 5, 6), np.float32))
    assert [finding.level.value for finding in check(raw)] == ["ok"]


def test_only_images_of_equal_size_are_decoded(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = raw / "imagesUl" / "alone_0000.nii.gz"
    write_image(alone, np.arange(3 * 9 * 9, dtype=np.float32).reshape(3, 9, 9))
    read: list[str] = []
    original = SimpleITKIO.read_images

    def recording(self: SimpleITKIO, files: Any) -> Any:
        read.extend(files)
        return original(self, files)

    monkeypatch.setattr(SimpleITKIO, "read_images", recording)
    check(raw)
    # six images, and one of them before to choose the reader
    assert len(read) == 7
    assert str(alone) not in read


def test_files_that_are_no_images(raw: Path) -> None:
    for name in ("a", "b"):
        (raw / "imagesTs" / f"{name}_0000.nii.gz").write_bytes(b"no image")
    finding = only(check(raw), "problem")
    assert finding.text.startswith("2 cannot be read: ")
    assert {Path(file).name for file in finding.details} == {"a_0000.nii.gz", "b_0000.nii.gz"}


def test_other_formats(tmp_path: Path) -> None:
    raw = tmp_path / NAME
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "imagesUl", "imagesTs"):
        (raw / folder).mkdir(parents=True)
        for index in range(2):
            picture = SimpleITK.GetImageFromArray(rng.integers(0, 255, (8, 9), np.uint8))
            SimpleITK.WriteImage(picture, str(raw / folder / f"{folder}_{index}_0000.png"))
    (raw / "dataset.json").write_text('{"channel_names": {"0": "x"}, "labels": {}, "file_ending": ".png"}')
    assert [finding.level.value for finding in check(raw)] == ["ok"]
    shutil.copy(raw / "imagesTr" / "imagesTr_0_0000.png", raw / "imagesTs" / "x_0000.png")
    assert only(check(raw), "problem").details == ("imagesTr/imagesTr_0_0000.png = imagesTs/x_0000.png",)
