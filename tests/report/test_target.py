"""The point through which pictures are cut."""

from __future__ import annotations

import numpy as np

from nnunet_sfr.report.target import find_centre


def test_the_middle_of_an_image_without_target() -> None:
    assert find_centre(np.full((5, 8, 11), -1, np.int8), (1, 1, 1)) == (2, 4, 5)


def test_the_largest_component_counts_whatever_its_classes() -> None:
    labels = np.zeros((9, 20, 20), np.int8)
    labels[1:4, 1:4, 1:4] = 2
    labels[6, 10:15, 10:13] = 1
    labels[6, 10:15, 13:15] = 2  # with the class beside it 25 voxels, the cube 27
    assert find_centre(labels, (1, 1, 1)) == (2, 2, 2)
    labels[7, 10:15, 10:15] = 3
    labels[8, 10:15, 10:15] = 3
    assert find_centre(labels, (1, 1, 1)) == (7, 12, 12)


def test_the_centre_of_an_l_lies_on_it() -> None:
    labels = np.zeros((1, 12, 12), np.int8)
    labels[0, 1:11, 1] = 1
    labels[0, 10, 1:11] = 1
    # 19 voxels; the centroid is row 7.87, column 3.13
    centre = find_centre(labels, (1, 1, 1))
    assert labels[centre] == 1
    assert centre in ((0, 8, 1), (0, 10, 3))


def test_nearest_is_meant_in_millimetres() -> None:
    labels = np.zeros((1, 12, 12), np.int8)
    labels[0, 1:11, 1] = 1
    labels[0, 10, 1:11] = 1
    # 2.13 voxels to the foot and 2.13 to the stem: the axis with the shorter voxels decides
    assert find_centre(labels, (1, 0.5, 1)) == (0, 10, 3)
    assert find_centre(labels, (1, 1, 0.5)) == (0, 8, 1)
