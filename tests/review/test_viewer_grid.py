"""Voxels go to the viewer's axes and back without one of them being lost, whatever way the image lies."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.review.viewer_grid import ViewerGrid, nifti_file

SHAPE = (3, 4, 5)
DIRECTIONS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def write_image(file: Path, direction: np.ndarray) -> None:
    image = SimpleITK.GetImageFromArray(np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32))
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing((1.0, 2.0, 3.0))
    SimpleITK.WriteImage(image, str(file))


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
def test_all_orientations(reader: type, tmp_path: Path) -> None:
    """What the viewer gets is what nibabel calls the closest canonical image: right, anterior, superior."""
    tilted = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    for number, direction in enumerate([*DIRECTIONS, tilted]):
        file = tmp_path / f"{number}.nii.gz"
        write_image(file, direction)
        image, properties = reader().read_images([str(file)])
        # as preprocessing with a transposing plan records it
        properties["shape_before_cropping"] = tuple(image.shape[1:][axis] for axis in (1, 0, 2))
        grid = ViewerGrid.of(properties, transpose_backward=(1, 0, 2))
        assert grid.raw_shape == image.shape[1:]
        shown = grid.to_viewer(image[0])
        assert shown.shape == grid.shape
        canonical = nibabel.as_closest_canonical(nibabel.load(file))
        np.testing.assert_array_equal(shown, np.asarray(canonical.dataobj).T)
        np.testing.assert_allclose(grid.spacing, canonical.header.get_zooms()[::-1], rtol=1e-6)
        np.testing.assert_array_equal(grid.from_viewer(shown), image[0])


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_nifti_file_is_read_as_it_was_written(dtype: type, tmp_path: Path) -> None:
    volume: np.ndarray = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)[:, ::-1]  # not contiguous
    file = tmp_path / "image.nii"
    file.write_bytes(nifti_file(volume, (3.0, 2.0, 1.0), (5.0, 40.0)))
    image = nibabel.Nifti1Image.from_filename(file)
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume)
    np.testing.assert_array_equal(image.affine, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert (float(image.header["cal_min"]), float(image.header["cal_max"])) == (5.0, 40.0)


def test_a_single_slice_has_no_orientation() -> None:
    properties = {"shape_before_cropping": (1, 6, 5), "spacing": [999, 1, 1]}
    grid = ViewerGrid.of(properties, (0, 1, 2))
    assert (grid.orientation.axes, grid.orientation.signs, grid.voxels) == ((0, 1, 2), (1, 1, 1), 30)
