"""Head up and the patient's right at left, however the file lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.report.orientation import UNKNOWN_ORIENTATION, Orientation, find_orientation

SHAPE = (4, 5, 6)
SPACING = (3.0, 1.0, 2.0)
HEAD, FRONT, RIGHT = (3, 2, 3), (1, 0, 3), (1, 2, 0)
"""Voxels (z, y, x) of a volume that runs from inferior, anterior and the patient's right."""


def patient() -> Any:
    """As ITK has it: identity is x to the left, y to posterior, z to superior."""
    volume = np.zeros(SHAPE, np.float32)
    for value, voxel in enumerate((HEAD, FRONT, RIGHT), start=1):
        volume[voxel] = value
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing(SPACING[::-1])
    return image


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("stored", ["LPS", "RAS", "SAR", "PIR"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_every_file_of_a_patient_gives_the_same_picture(
    reader: Any, stored: str, transpose: tuple[int, int, int], tmp_path: Path
) -> None:
    file = tmp_path / "case_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(patient(), stored), str(file))
    image, properties = reader().read_images([str(file)])
    array = image[0].transpose(transpose)
    spacing = [properties["spacing"][axis] for axis in transpose]

    orientation = find_orientation(properties, transpose)
    turned = orientation.turn(array)
    assert turned.shape == SHAPE
    assert orientation.turn_spacing(spacing) == pytest.approx(SPACING)
    for value, voxel in enumerate((HEAD, FRONT, RIGHT), start=1):
        assert turned[voxel] == value
        before = tuple(int(index) for index in np.argwhere(array == value)[0])
        assert orientation.turn_voxel(before, array.shape) == voxel


def test_an_oblique_image_goes_to_the_nearest_axes() -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    found = find_orientation({"nibabel_stuff": {"original_affine": affine}}, (0, 1, 2))
    assert found == Orientation((0, 1, 2), (1, -1, -1))


@pytest.mark.parametrize(
    "properties",
    [{}, {"sitk_stuff": {"direction": (1.0, 0.0, 0.0, 1.0)}}, {"sitk_stuff": {"direction": (0.0,) * 9}}],
)
def test_files_that_do_not_know_are_shown_as_they_are(properties: dict[str, Any]) -> None:
    assert find_orientation(properties, (0, 1, 2)) == UNKNOWN_ORIENTATION == Orientation(is_known=False)
