"""NIfTI files that are damaged, and those that nibabel alone refuses."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.conversion.nifti import read_affine, read_volume
from nnunet_sfr.data.nifti_files import read_voxels
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.data.reading import ContentError, read_strictly
from nnunet_sfr.errors import UserError

LABEL = np.random.default_rng(0).integers(0, 3, (12, 10, 8)).astype(np.uint8)


@pytest.fixture
def label(tmp_path: Path) -> Path:
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(LABEL, np.eye(4)), file)
    return file


def test_no_flipped_bit_passes_with_other_voxels(label: Path) -> None:
    """gzip's checksum, the eight bytes at the end, is what tells most of them."""
    packed = label.read_bytes()
    assert read_volume(label).voxels.tolist() == LABEL.tolist()
    unnoticed, said = [], set()
    for position in range(len(packed) // 2, len(packed), 3):
        flipped = bytearray(packed)
        flipped[position] ^= 1
        label.write_bytes(flipped)
        try:
            unnoticed += [] if np.array_equal(read_volume(label).voxels, LABEL) else [position]
        except UserError as error:
            said.add(str(error).partition(" (")[0])
    assert unnoticed == []
    assert said == {f"{label}: its voxels cannot be read"}


def test_damage_in_the_first_bytes_is_one_line(label: Path) -> None:
    packed = bytearray(label.read_bytes())
    packed[10:30] = b"\xff" * 20
    label.write_bytes(packed)
    with pytest.raises(UserError, match=r"a\.nii\.gz: cannot be read as NIfTI .*; replace it"):
        read_affine(label)


def test_planning_finds_a_wrong_checksum_whatever_the_reader(label: Path) -> None:
    """nnU-Net's NibabelIO reads such a file without a word."""
    packed = bytearray(label.read_bytes())
    packed[-8] ^= 1
    label.write_bytes(packed)
    assert NibabelIO().read_seg(str(label))[0].max() == 2
    with pytest.raises(ContentError, match=r"a\.nii\.gz: label of case a cannot be read \(CRC check failed"):
        read_strictly(NibabelIO, label, RawCase("a", (), label), kind="label")


def test_what_follows_the_compressed_stream_is_ignored(label: Path) -> None:
    """As gzip itself, nibabel and SimpleITK ignore it."""
    label.write_bytes(label.read_bytes() + b"garbage")
    np.testing.assert_array_equal(read_voxels(label), LABEL)


def test_stored_values_and_scaled_ones(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, 1)
    for file in (tmp_path / "a.nii", tmp_path / "a.nii.gz"):
        nibabel.save(image, file)
        stored = np.arange(24).reshape(2, 3, 4)
        np.testing.assert_array_equal(read_voxels(file, as_stored=True), stored)
        np.testing.assert_array_equal(read_voxels(file), 2 * stored + 1)


def test_a_rounded_quaternion_gives_the_affine_that_itk_gives(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), None)
    header = image.header
    header["pixdim"][:4] = 1, 1, 2, 3
    header["qform_code"] = 1
    quaternion = np.array([0.6, 0.0, 0.8]) * np.sqrt(1 + 8e-7)
    for axis, value in zip("bcd", quaternion, strict=True):
        header[f"quatern_{axis}"] = value
    nibabel.save(image, file)
    with pytest.raises(ValueError, match="w2 should be positive"):
        nibabel.load(file)
    _, affine = read_affine(file)
    by_itk = np.reshape(sitk.ReadImage(str(file)).GetDirection(), (3, 3)) * [1, 2, 3]
    np.testing.assert_allclose(affine[:3, :3], np.diag([-1, -1, 1]) @ by_itk, atol=1e-6)
    assert read_volume(file).voxels.shape == (2, 3, 4)
    array, _ = read_strictly(SimpleITKIO, file, RawCase("a", (file,)))
    assert array.shape == (1, 4, 3, 2)
