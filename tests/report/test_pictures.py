"""Geometry and colours of the three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.report.colours import OKABE_ITO, colour, rgb
from nnunet_sfr.report.pictures import (
    FILL,
    GAP,
    WIDTH,
    draw_labels,
    draw_planes,
    grey_levels,
    lay_out,
    save_picture,
    to_grey,
)

RED = (255, 0, 0)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (the last ones inside)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_planes_lie_side_by_side_with_equal_millimetres() -> None:
    # 40 x 60 x 92 mm: widths 92 + 92 + 60 = 244 mm on 600 - 8 pixels, 2.426 pixels a mm
    axial, coronal, sagittal = lay_out((20, 60, 46), (2.0, 1.0, 2.0))
    assert (axial.axis, coronal.axis, sagittal.axis) == (0, 1, 2)
    assert axial.box == (0, 0, 223, 146)
    assert coronal.box == (223 + GAP, (146 - 97) // 2, 223, 97)
    assert sagittal.box == (2 * (223 + GAP), (146 - 97) // 2, 146, 97)
    assert sum(plane.box[2] for plane in (axial, coronal, sagittal)) + 2 * GAP == WIDTH


def test_a_tall_patient_is_no_higher_than_allowed() -> None:
    planes = lay_out((900, 100, 100), (2.0, 2.0, 2.0))
    assert [plane.box[3] for plane in planes] == [44, 400, 400]


@pytest.mark.parametrize(("shape", "axis"), [((1, 30, 40), 0), ((30, 1, 40), 1), ((30, 40, 1), 2)])
def test_a_single_slice_is_shown_alone(shape: tuple[int, int, int], axis: int) -> None:
    (plane,) = lay_out(shape, (1.0, 1.0, 1.0))
    assert plane.axis == axis
    assert plane.box == (0, 0, 533, 400)


def test_a_cuboid_lies_where_it_should_in_every_plane() -> None:
    # voxels of 4 x 2 x 1 mm on 10 x 25 x 50: 40 x 50 x 50 mm; (600 - 8) / 150 mm = 3.9467 pixels a mm
    image = np.zeros((10, 25, 50), np.float32)
    labels = np.zeros(image.shape, np.int8)
    labels[6:9, 5:10, 20:45] = 1  # 24 to 36 mm from below, 10 to 20 from the front, 20 to 45 from the right
    picture = draw_planes(image, labels, (7, 7, 30), (4.0, 2.0, 1.0), (0.0, 1.0), {1: RED})
    assert picture.shape == (197, 197 * 3 + 2 * GAP, 3)
    red = picture[..., 0] > 0
    scale, width = 592 / 150, 197
    expected = {  # rows and columns in mm
        0: (10, 20, 20, 45),  # axial: front at the top
        1: (40 - 36, 40 - 24, 20, 45),  # coronal: head at the top
        2: (40 - 36, 40 - 24, 10, 20),
    }
    for plane, (top, bottom, left, right) in expected.items():
        offset = 0 if plane == 0 else (197 - 158) // 2
        start = plane * (width + GAP)
        found = box(red[:, start : start + width])
        wanted = (offset + top * scale, offset + bottom * scale - 1, left * scale, right * scale - 1)
        assert found == pytest.approx(wanted, abs=0.6), plane
    edges = picture[..., 0] == 255
    assert box(edges[:, :width]) == box(red[:, :width])
    assert picture[60, 120].tolist() == [round(FILL * 255), 0, 0]  # inside, half transparent on black


def test_no_class_appears_between_two_others() -> None:
    labels = np.zeros((5, 5, 5), np.int8)
    labels[:, :, 2:] = 2
    picture = draw_planes(labels.astype(float), labels, (2, 2, 2), (1, 1, 1), (0.0, 9.0), {1: (0, 255, 0), 2: RED})
    assert (picture[..., 0] == 255).any()
    assert not (picture[..., 1] > picture[..., 0]).any()


def test_planes_go_through_the_centre() -> None:
    image = np.zeros((3, 3, 3), np.float32)
    image[0, 2, 1] = 1
    levels, spacing = (0.0, 1.0), (1.0, 1.0, 1.0)

    def lit(centre: tuple[int, int, int]) -> list[bool]:
        picture = draw_planes(image, None, centre, spacing, levels, {})
        return [bool((picture[:, left : left + 197] == 255).any()) for left in (0, 201, 402)]

    assert lit((0, 2, 1)) == [True, True, True]
    assert lit((0, 0, 0)) == [True, False, False]
    assert lit((1, 2, 0)) == [False, True, False]
    assert lit((1, 1, 1)) == [False, False, True]


def test_labels_are_filled_and_outlined() -> None:
    grey = np.full((7, 9), 100, np.uint8)
    labels = np.zeros((7, 9), np.int32)
    labels[1:6, 1:6] = 1
    labels[2:5, 6:8] = 2
    labels[0, 8] = -1
    picture = draw_labels(grey, labels, {1: RED, 2: (0, 0, 200)})
    assert picture[3, 3].tolist() == [round(0.7 * 100 + 0.3 * 255), 70, 70]
    assert picture[1, 1].tolist() == [255, 0, 0]
    assert picture[3, 5].tolist() == [255, 0, 0]  # where it touches the other class
    assert picture[3, 6].tolist() == [0, 0, 200]
    assert picture[0, 8].tolist() == [100, 100, 100]  # outside the mask
    assert (
        draw_labels(grey, np.ones((7, 9), np.int32), {1: RED})[0, 0] == picture[3, 3]
    ).all()  # no edge at the border


def test_grey_levels_leave_out_the_extremes() -> None:
    values = np.arange(1001, dtype=np.float32)
    assert grey_levels(values) == (5.0, 995.0)
    assert to_grey(np.array([0.0, 5.0, 500.0, 995.0, 2000.0]), (5.0, 995.0)).tolist() == [0, 0, 128, 255, 255]
    assert to_grey(np.array([3.0, 3.0]), (3.0, 3.0)).tolist() == [0, 0]  # a constant image


def test_a_saved_picture_is_a_small_webp(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 120, (160, 600, 3), dtype=np.uint8)
    save_picture(noise, tmp_path / "pictures" / "a.webp")
    with Image.open(tmp_path / "pictures" / "a.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (600, 160))


def test_every_class_has_a_colour_of_its_own() -> None:
    colours = [colour(index) for index in range(30)]
    assert colours[:7] == list(OKABE_ITO)
    assert len(set(colours)) == 30
    assert rgb("#e69f00") == (230, 159, 0)
