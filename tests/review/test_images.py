"""The image as the viewer gets it: nnU-Net's voxels, in as few bytes as hold them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.review.images import image_file
from nnunet_sfr.review.viewer_grid import ViewerGrid


def served(file: Path, reader: type[BaseReaderWriter], channel: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A channel as the viewer gets it and as nnU-Net reads it, (slices, height, width)."""
    expected = reader().read_images([str(file)])[0][channel]
    depth, height, width = expected.shape
    grid = ViewerGrid((depth, height, width), (3.0, 2.0, 1.0), Orientation())
    sent = nibabel.Nifti1Image.from_bytes(bytes(image_file(RawCase("case", (file,)), channel, grid, reader)))
    return grid.from_viewer(np.asarray(sent.dataobj).T), expected


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO])
@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("uint8", "int16"),
        ("int16", "int16"),
        ("uint16", "float32"),  # up to 60000, which int16 does not hold
        ("int32", "int16"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_the_voxels_are_those_that_nnunet_reads(
    stored: str, sent: str, reader: type[BaseReaderWriter], tmp_path: Path
) -> None:
    highest = {"uint8": 250, "uint16": 60000}.get(stored, 3000)
    image = np.linspace(0 if stored.startswith("u") else -1000, highest, 60).reshape(3, 4, 5).astype(stored)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / "image.nii.gz"))
    shown, expected = served(tmp_path / "image.nii.gz", reader)
    assert shown.dtype == sent
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(("shape", "channel"), [((4, 5), 0), ((2, 3, 4, 5), 1)])
def test_a_slice_and_channels_in_one_file(shape: tuple[int, ...], channel: int, tmp_path: Path) -> None:
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image, isVector=False), str(tmp_path / "image.nii.gz"))
    shown, expected = served(tmp_path / "image.nii.gz", SimpleITKIO, channel)
    np.testing.assert_array_equal(shown, expected)
    assert shown.max() == image.max()


def test_voxels_that_are_no_numbers_are_shown_as_0(tmp_path: Path) -> None:
    image = np.array([[[np.nan, 1.0, 2.0]]], np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / "image.mha"))
    shown, _ = served(tmp_path / "image.mha", SimpleITKIO)
    np.testing.assert_array_equal(shown, np.array([[[0, 1, 2]]], np.int16))
