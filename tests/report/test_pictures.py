"""Geometry and colours of the three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.report.colours import OKABE_ITO, colour, rgb
from nnunet_sfr.report.pictures import (
    CONTOUR,
    FILL,
    GAP,
    HEIGHT,
    WIDTH,
    colour_labels,
    draw_image,
    draw_labels,
    field_of_view,
    lay_out,
    save_image,
    save_labels,
    to_grey,
)

RED = (255, 0, 0)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (the last ones inside)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_a_thin_stack_has_its_axial_plane_beside_the_others() -> None:
    # 40 x 60 x 92 mm: the axial plane and the coronal one above the sagittal one, 184 mm on 960 - 6 pixels
    layout = lay_out((20, 60, 46), (2.0, 1.0, 2.0))
    axial, coronal, sagittal = layout.planes
    assert (axial.axis, coronal.axis, sagittal.axis) == (0, 1, 2)
    assert layout.pixels_per_mm == pytest.approx((WIDTH - GAP) / 184)
    assert layout.size == (960, 2 * 207 + GAP)
    assert axial.box == (0, (420 - 311) // 2, 477, 311)
    assert coronal.box == (477 + GAP, 0, 477, 207)
    assert sagittal.box == (477 + GAP, 207 + GAP, 311, 207)


def test_a_tall_volume_has_its_planes_in_a_row() -> None:
    layout = lay_out((100, 60, 60), (1.0, 1.0, 1.0))
    assert [plane.box[:2] for plane in layout.planes] == [(0, (527 - 316) // 2), (316 + GAP, 0), (2 * (316 + GAP), 0)]
    assert [plane.box[2:] for plane in layout.planes] == [(316, 316), (316, 527), (316, 527)]
    assert layout.size == (960, 527)


def test_pictures_are_never_larger_than_allowed() -> None:
    for shape in ((900, 100, 100), (100, 900, 100), (100, 100, 900), (7, 7, 7), (2, 500, 3)):
        layout = lay_out(shape, (1.0, 1.0, 1.0))
        assert layout.size[0] <= WIDTH + 2, shape
        assert layout.size[1] <= HEIGHT + 2, shape
        assert max(left + width for left, _, width, _ in (plane.box for plane in layout.planes)) <= layout.size[0]


def test_of_a_whole_body_the_part_around_the_target_is_shown() -> None:
    # 1800 mm high, 400 x 500 mm: 1.6 x 500 mm = 400 slices
    shape, spacing = (900, 400, 500), (2.0, 1.0, 1.0)
    assert field_of_view(shape, spacing, (450, 0, 0)) == (slice(250, 650), slice(0, 400), slice(0, 500))
    assert field_of_view(shape, spacing, (10, 0, 0))[0] == slice(0, 400)
    assert field_of_view(shape, spacing, (899, 0, 0))[0] == slice(500, 900)
    assert field_of_view((26, 96, 118), (3.0, 3.0, 3.0), (5, 5, 5)) == (slice(0, 26), slice(0, 96), slice(0, 118))


@pytest.mark.parametrize(("shape", "axis"), [((1, 30, 40), 0), ((30, 1, 40), 1), ((30, 40, 1), 2)])
def test_a_single_slice_is_shown_alone(shape: tuple[int, int, int], axis: int) -> None:
    (plane,) = lay_out(shape, (1.0, 1.0, 1.0)).planes
    assert plane.axis == axis
    assert plane.box == (0, 0, 960, 720)


def test_a_cuboid_lies_where_it_should_in_every_plane() -> None:
    # voxels of 4 x 2 x 1 mm on 20 x 25 x 50: 80 x 50 x 50 mm, in a row
    labels = np.zeros((20, 25, 50), np.int8)
    labels[6:9, 5:10, 20:45] = 1  # 24 to 36 mm from below, 10 to 20 from the front, 20 to 45 from the right
    layout = lay_out(labels.shape, (4.0, 2.0, 1.0))
    picture = draw_labels(labels, layout, (7, 7, 30), {1: RED})
    assert picture.shape == (*layout.size[::-1], 4)
    scale = layout.pixels_per_mm
    assert scale == pytest.approx((WIDTH - 2 * GAP) / 150)
    expected = {  # rows and columns in mm
        0: (10, 20, 20, 45),  # axial: front at the top
        1: (80 - 36, 80 - 24, 20, 45),  # coronal: head at the top
        2: (80 - 36, 80 - 24, 10, 20),
    }
    for plane, (top, bottom, left, right) in zip(layout.planes, expected.values(), strict=True):
        x, y, width, height = plane.box
        found = box(picture[y : y + height, x : x + width, 3] > 0)
        wanted = (top * scale, bottom * scale - 1, left * scale, right * scale - 1)
        assert found == pytest.approx(wanted, abs=0.6), plane
    assert not picture[:, layout.planes[0].box[2]].any(), "nothing is drawn between the planes"


def test_no_class_appears_between_two_others() -> None:
    labels = np.zeros((5, 5, 5), np.int8)
    labels[:, :, 2:] = 2
    picture = draw_labels(labels, lay_out(labels.shape, (1, 1, 1)), (2, 2, 2), {1: (0, 255, 0), 2: RED})
    assert picture[..., 0].any()
    assert not picture[..., 1].any()


def test_planes_go_through_the_centre() -> None:
    labels = np.zeros((3, 3, 3), np.int8)
    labels[0, 2, 1] = 1
    layout = lay_out(labels.shape, (1.0, 1.0, 1.0))

    def lit(centre: tuple[int, int, int]) -> list[bool]:
        picture = draw_labels(labels, layout, centre, {1: RED})
        boxes = [plane.box for plane in layout.planes]
        return [bool(picture[y : y + height, x : x + width].any()) for x, y, width, height in boxes]

    assert lit((0, 2, 1)) == [True, True, True]
    assert lit((0, 0, 0)) == [True, False, False]
    assert lit((1, 2, 0)) == [False, True, False]
    assert lit((1, 1, 1)) == [False, False, True]


def test_letters_stand_where_the_file_says_how_the_patient_lies() -> None:
    image = np.zeros((40, 60, 92), np.float32)
    layout = lay_out(image.shape, (1.0, 1.0, 1.0))
    marked, plain = (
        draw_image(image, layout, (20, 30, 40), (0.0, 1.0), is_oriented=is_oriented) for is_oriented in (True, False)
    )
    assert marked.shape == layout.size[::-1]
    for plane in layout.planes:
        x, y, width, height = plane.box
        for left, top in ((x + width // 2, y + 6), (x + width // 2, y + height - 30), (x + 6, y + height // 2 - 12)):
            letter = (slice(top, top + 24), slice(left - 6, left + 18))
            assert marked[letter].max() == 255, (plane, left, top)
            assert plain[letter].max() == 0, (plane, left, top)


def test_the_image_is_black_between_the_planes() -> None:
    layout = lay_out((20, 60, 46), (2.0, 1.0, 2.0))
    picture = draw_image(np.ones((20, 60, 46), np.float32), layout, (0, 0, 0), (0.0, 1.0), is_oriented=False)
    outside = np.ones(picture.shape, bool)
    for plane in layout.planes:
        x, y, width, height = plane.box
        outside[y : y + height, x : x + width] = False
        assert (picture[y : y + height, x : x + width] == 255).mean() > 0.9
    assert not picture[outside].any()


def test_labels_are_filled_and_outlined() -> None:
    labels = np.zeros((13, 15), np.int32)
    labels[1:12, 1:9] = 1
    labels[4:9, 9:14] = 2
    labels[0, 14] = -1
    picture = colour_labels(labels, {1: RED, 2: (0, 0, 200)})
    assert CONTOUR == 2
    assert picture[5, 5].tolist() == [255, 0, 0, round(FILL * 255)]
    assert [picture[row, 5, 3] for row in range(5)] == [0, 255, 255, round(FILL * 255), round(FILL * 255)]
    assert picture[6, 8].tolist() == [255, 0, 0, 255]  # where it touches the other class
    assert picture[6, 9].tolist() == [0, 0, 200, 255]
    assert picture[0, 14].tolist() == [0, 0, 0, 0]  # outside the mask
    # no contour at the border
    assert colour_labels(np.ones((7, 9), np.int32), {1: RED})[0, 0].tolist() == [255, 0, 0, round(FILL * 255)]


def test_values_become_grey() -> None:
    assert to_grey(np.array([0.0, 5.0, 500.0, 995.0, 2000.0]), (5.0, 995.0)).tolist() == [0, 0, 128, 255, 255]
    assert to_grey(np.array([3.0, 3.0]), (3.0, 3.0)).tolist() == [0, 0]  # a constant image


def test_saved_pictures_are_webp(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 120, (160, 600), dtype=np.uint8)
    save_image(noise, tmp_path / "pictures" / "a.webp")
    with Image.open(tmp_path / "pictures" / "a.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (600, 160))
    labels = colour_labels(np.eye(40, dtype=np.int32), {1: (10, 20, 30)})
    save_labels(labels, tmp_path / "b.webp")
    with Image.open(tmp_path / "b.webp") as picture:
        drawn = np.asarray(picture.convert("RGBA"))
    np.testing.assert_array_equal(drawn[..., 3], labels[..., 3])
    np.testing.assert_array_equal(drawn[np.eye(40, dtype=bool)], labels[np.eye(40, dtype=bool)])


def test_every_class_has_a_colour_of_its_own() -> None:
    colours = [colour(index) for index in range(30)]
    assert colours[:7] == list(OKABE_ITO)
    assert len(set(colours)) == 30
    assert rgb("#e69f00") == (230, 159, 0)
