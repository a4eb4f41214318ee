"""Label maps on the grid of their image, rounded, shifted and flipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.data.grids import require_same_grid
from nnunet_sfr.errors import UserError

SHAPE = (200, 60, 30)
"""(x, y, z), of which a turn moves the far corner by voxels."""


def geometry(reader: type[BaseReaderWriter], file: Path) -> tuple[tuple[int, ...], dict[str, Any]]:
    array, properties = reader().read_seg(str(file))
    return array.shape[1:], properties


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """With a quaternion alone, whose first part w is 5e-4: for nibabel, that is rounding, and w is 0."""
    file = tmp_path / "image.nii.gz"
    written = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None)
    header = written.header
    header["pixdim"][:4] = 1, 0.7, 0.8, 3
    header["qform_code"] = 1
    header["quatern_d"] = np.sqrt(1 - 5e-4**2)
    header["qoffset_x"] = -50
    nibabel.save(written, file)
    return file


def label(image: Path, change: np.ndarray) -> Path:
    """A label map whose voxels lie where ``change`` of the image's indices lie, as nibabel tells."""
    file = image.with_name("label.nii.gz")
    affine = nibabel.load(image).affine @ change  # type: ignore[attr-defined]
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), affine), file)
    return file


def test_a_label_map_with_nibabels_affine_lies_on_the_grid_that_itk_reads(image: Path) -> None:
    file = label(image, np.eye(4))
    directions = [geometry(SimpleITKIO, place)[1]["sitk_stuff"]["direction"] for place in (file, image)]
    assert np.abs(np.subtract(*directions)).max() > 5e-4, "else the test would prove nothing"
    require_same_grid(file, geometry(SimpleITKIO, file), geometry(SimpleITKIO, image), "a")


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ((1, 1, 1, 0.1, 0, 0), "origin"),
        ((1, 1, 1, 0, 0, -1), "origin"),
        ((-1, 1, 1, 199, 0, 0), "origin"),
        ((-1, 1, 1, 0, 0, 0), "direction"),
        ((1, 1, -1, 0, 0, 0), "direction"),
        ((1, 1, 1.001, 0, 0, 0), "spacing"),
    ],
)
def test_a_shifted_flipped_or_stretched_one_is_refused(
    change: tuple[float, ...], named: str, reader: type[BaseReaderWriter], image: Path
) -> None:
    matrix = np.diag([*change[:3], 1.0])
    matrix[:3, 3] = change[3:]
    file = label(image, matrix)
    with pytest.raises(UserError, match=rf"label\.nii\.gz: {named} .*, but the image of case a has"):
        require_same_grid(file, geometry(reader, file), geometry(reader, image), "a")


def test_one_that_is_turned_by_more_than_rounding_is_refused(image: Path) -> None:
    affine = nibabel.load(image).affine  # type: ignore[attr-defined]
    turned = affine.copy()
    cos, sin = np.cos(0.004), np.sin(0.004)
    turned[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ affine[:3, :3]
    file = label(image, np.linalg.inv(affine) @ turned)
    with pytest.raises(UserError, match=r"label\.nii\.gz: direction "):
        require_same_grid(file, geometry(SimpleITKIO, file), geometry(SimpleITKIO, image), "a")
