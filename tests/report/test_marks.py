"""The scale bar is as long as it says, and the letters are those of the plane."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_sfr.report.marks import BAR_HEIGHT, BAR_SHARE, SIDES, bar_length, draw_scale_bar, mark_sides


@pytest.mark.parametrize(
    ("most", "length"), [(99.9, 50), (100, 100), (1.9, 1), (2, 2), (0.3, 0.2), (49, 20), (5000, 5000)]
)
def test_a_bar_has_a_round_length(most: float, length: float) -> None:
    assert bar_length(most) == pytest.approx(length)


@pytest.mark.parametrize("pixels_per_mm", [0.5, 1.375, 7.0])
def test_a_bar_is_as_long_as_it_says(pixels_per_mm: float) -> None:
    box = (20, 10, 400, 300)
    picture = draw_scale_bar(np.full((320, 440), 90, np.uint8), box, pixels_per_mm)
    length = bar_length(BAR_SHARE * 400 / pixels_per_mm)
    white = (picture == 255).sum(axis=1)
    assert (white == round(length * pixels_per_mm)).sum() >= BAR_HEIGHT
    rows = np.flatnonzero(white == round(length * pixels_per_mm))
    assert 10 + 250 < rows[0] < 310
    assert (picture[:, :20] == 90).all()


def test_opposite_sides_have_opposite_letters() -> None:
    opposite = {"A": "P", "R": "L", "H": "F"}
    assert all(opposite[top] == bottom and opposite[left] == right for top, bottom, left, right in SIDES.values())
    assert set("".join(SIDES[0])) == set("APRL")
    assert set("".join(SIDES[1])) == set("HFRL")
    assert set("".join(SIDES[2])) == set("HFAP")


def test_letters_stay_inside_their_plane() -> None:
    picture = mark_sides(np.full((200, 200), 90, np.uint8), (50, 60, 80, 20), 1)
    changed = picture != 90
    assert changed.any()
    changed[60:80, 50:130] = False
    assert not changed.any()
