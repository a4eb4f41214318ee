"""The page in headless Chromium: what is drawn is what is written, by pointer and by keyboard."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.review import images
from nnunet_sfr.review.redirect import redirect_file
from tests.review.reviewed_project import FIRST, SECOND, Served, read, served

pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, expect

from tests.browser import NAMES, find_chromium, headless, patient_context

SOFTWARE_GRAPHICS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""Containers have no graphics card."""
WIDTH, HEIGHT = 20, 22
"""Voxels of the first case from left to right, and from front to back."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip(f"there is no Chromium: none of {', '.join(NAMES)}")
    with headless(program, *SOFTWARE_GRAPHICS) as running:
        yield running


@pytest.fixture
def server(project: SFRDataset) -> Iterator[Served]:
    with served(project) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The page with the first case open; it may not complain about anything, its content policy included."""
    context = patient_context(browser, viewport={"width": 900, "height": 600})
    complaints: list[str] = []
    asked: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    show(page, server, FIRST)
    yield page
    context.close()
    # what the server refuses is shown on the page, and Chromium adds a line of its own
    assert [text for text in complaints if "409 (Conflict)" not in text] == []
    assert [url for url in asked if not url.startswith((server.address, "data:", "blob:"))] == []


def show(page: Page, server: Served, case: str) -> None:
    page.goto(f"{server.address}#{case}")
    page.wait_for_selector(f"body[data-ready={case}]")
    page.get_by_role("button", name="Planes", exact=True).click()  # 3D takes long without a graphics card


def cross(page: Page) -> tuple[int, int, int]:
    """The voxel at the cross: x to the patient's right, y to the front, z to the head."""
    found = re.match(r"(\d+) (\d+) (\d+):", page.inner_text("#place"))
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])


def raw(voxel: tuple[int, int, int]) -> list[int]:
    """The same voxel in the file, whose axes go to the patient's left and back: (slice, row, column)."""
    x, y, z = voxel
    return [z, HEIGHT - 1 - y, WIDTH - 1 - x]


def saved(server: Served, case: str = FIRST) -> np.ndarray:
    return read(server.session.progress.label_file(case))


def pseudo_label(server: Served, tmp_path: Path, case: str = FIRST) -> np.ndarray:
    """The pseudo-label as accepting it writes it."""
    server.session.accept(case, "round_0")
    labels = saved(server, case)
    server.session.progress.remove_label(case)
    return labels


def set_brush(page: Page, size: int) -> None:
    page.evaluate(
        "size => { const input = document.getElementById('size'); input.value = size; input.oninput(); }", size
    )


def middle_of_axial_plane(page: Page) -> tuple[float, float]:
    page.get_by_role("button", name="Axial").click()
    box = page.locator("#view").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_stroke_is_saved_voxel_by_voxel(page: Page, server: Served, tmp_path: Path) -> None:
    before = pseudo_label(server, tmp_path)
    x, y = middle_of_axial_plane(page)
    page.mouse.click(x - 40, y - 190)
    start = cross(page)
    page.keyboard.press("b")
    set_brush(page, 1)
    page.mouse.move(x - 40, y - 190)
    page.mouse.down()
    page.mouse.move(x + 40, y - 190, steps=6)
    page.mouse.up()
    page.keyboard.press("m")
    page.mouse.click(x + 40, y - 190)
    end = cross(page)
    assert (start[1:], start[0] > end[0]) == (end[1:], True), "the patient's right is at the left"

    page.keyboard.press("s")
    expect(page.locator("#message")).to_contain_text("Saved:")
    line = {tuple(raw((column, *start[1:]))) for column in range(end[0], start[0] + 1)}
    changed = {tuple(voxel) for voxel in np.argwhere(saved(server) != before).tolist()}
    assert changed == {voxel for voxel in line if before[voxel] == 0}
    assert len(changed) > 3
    assert all(saved(server)[voxel] == 1 for voxel in line)
    expect(page.locator("#message")).to_contain_text(f"Saved: {len(changed)} voxels differ")

    page.reload()
    page.wait_for_selector(f"body[data-ready={FIRST}]")
    expect(page.locator("#message")).to_contain_text("This case is corrected")
    expect(page.locator("#undo")).to_be_enabled()
    page.keyboard.press("z")  # back to the pseudo-label
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("s")
    expect(page.locator("#message")).to_contain_text("Saved: 0 voxels differ")
    np.testing.assert_array_equal(saved(server), before)


def test_the_keyboard_suffices(page: Page, server: Served, tmp_path: Path) -> None:
    before = pseudo_label(server, tmp_path)
    set_brush(page, 1)
    page.keyboard.press("b")
    for _ in range(HEIGHT):
        page.keyboard.press("ArrowUp")
    x, y, z = cross(page)
    assert y == HEIGHT - 1
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("PageUp")
    page.keyboard.press("Space")
    page.keyboard.press("x")  # the plane from left to right and foot to head
    page.keyboard.press("Shift+ArrowUp")
    drawn = [(x, y, z), (x + 1, y, z), (x + 1, y, z + 1), (x + 1, y, z + 2)]
    expect(page.locator(".state.draft")).to_have_count(1)  # kept before it is saved
    page.keyboard.press("s")
    expect(page.locator("#message")).to_contain_text("Saved: 4 voxels differ")
    assert np.argwhere(saved(server) != before).tolist() == sorted(map(raw, drawn))

    page.keyboard.press("e")
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+s")
    expect(page.locator("#message")).to_contain_text("Saved: 3 voxels differ")
    for _ in range(5):
        page.keyboard.press("z")
    page.keyboard.press("a")
    page.wait_for_selector(f"body[data-ready={SECOND}]")
    assert server.session.case_state(FIRST)["state"] == "accepted"
    np.testing.assert_array_equal(saved(server), before)
    page.keyboard.press("k")
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("#done-text")).to_contain_text("1 corrected or accepted case is ready")
    expect(page.locator("#command")).to_contain_text("sfr_add_labels -d Dataset042_Tiny -i ")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    page.wait_for_selector(f"body[data-ready={FIRST}]")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


def test_outline_and_fill_stay_in_their_slice(page: Page, server: Served, tmp_path: Path) -> None:
    before = pseudo_label(server, tmp_path)
    for _ in range(HEIGHT):
        page.keyboard.press("PageDown")
    x, y = middle_of_axial_plane(page)
    page.keyboard.press("o")
    page.mouse.move(x - 80, y - 80)
    page.mouse.down()
    for corner in ((80, -80), (80, 80), (-80, 80), (-80, -70)):
        page.mouse.move(x + corner[0], y + corner[1], steps=8)
    page.mouse.up()
    page.keyboard.press("s")
    expect(page.locator("#message")).to_contain_text("Saved:")
    outlined = np.argwhere(saved(server) != before)
    rows, columns = np.ptp(outlined[:, 1]) + 1, np.ptp(outlined[:, 2]) + 1
    assert set(outlined[:, 0]) == {0}
    assert len(outlined) == rows * columns > 20, "the inside is filled"

    page.keyboard.press("f")
    page.mouse.click(x - 150, y - 150)  # the background around it
    page.keyboard.press("s")
    expect(page.locator("#message")).to_contain_text(f"Saved: {HEIGHT * WIDTH - np.count_nonzero(before[0])} voxels")
    assert (saved(server)[0] == 1).all()
    np.testing.assert_array_equal(saved(server)[1:], before[1:])


def test_nothing_is_lost_when_the_tab_dies(page: Page, server: Served, browser: Browser) -> None:
    page.keyboard.press("b")
    for _ in range(HEIGHT):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    expect(page.locator(".state.draft")).to_have_count(1)
    page.close()
    again = patient_context(browser).new_page()
    show(again, server, FIRST)
    expect(again.locator("#message")).to_contain_text("What you drew last is here again")
    expect(again.locator("#undo")).to_be_enabled()
    again.keyboard.press("a")
    expect(again.locator("#message")).to_contain_text("the labels were changed: save them, or undo the changes")
    assert server.session.decided == []
    again.context.close()


def test_what_goes_wrong_is_said_in_one_line(page: Page, server: Served, project: SFRDataset) -> None:
    page.keyboard.press("a")
    page.wait_for_selector(f"body[data-ready={SECOND}]")
    server.session.progress.remove_label(FIRST)
    page.keyboard.press("p")
    page.wait_for_selector(f"body[data-ready={FIRST}]")
    expect(page.locator("#message.problem")).to_contain_text("has been deleted; the case is open again")
    (project.paths.raw_unlabelled / f"{SECOND}_0000.nii.gz").unlink()
    page.keyboard.press("n")
    expect(page.locator("#message.problem")).to_contain_text(f"the image of case {SECOND} is not there")
    page.keyboard.press("p")
    page.wait_for_selector(f"body[data-ready={FIRST}]")


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_grey_values_are_those_of_the_window(
    dtype: str, monkeypatch: pytest.MonkeyPatch, browser: Browser, server: Served
) -> None:
    parts = np.array([[-300, 0], [250, 700]]) + (0.25 if dtype == "float32" else 0)
    quarters = parts[np.ix_(np.arange(HEIGHT) * 2 // HEIGHT, np.arange(WIDTH) * 2 // WIDTH)].astype(dtype)
    monkeypatch.setattr(images, "_read", lambda file, *_: as_stored(file, quarters))

    page = patient_context(browser, viewport={"width": 900, "height": 600}).new_page()
    show(page, server, FIRST)
    page.keyboard.press("h")  # no labels over it
    x, y = middle_of_axial_plane(page)
    page.mouse.click(x, y)  # the cross is not where pixels are read
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    page.context.close()
    # rows of the file go to the patient's back, which is down, and columns to the left, which is at the right
    for down, right, grey in [(-60, -60, 0), (-60, 60, 76), (60, -60, 140), (60, 60, 255)]:
        np.testing.assert_allclose(shown[round(y) + down, round(x) + right], grey, atol=2)


def as_stored(file: Path, slice_of_all: np.ndarray) -> np.ndarray:
    """An image with the voxels of a file, (channel, slices, height, width), each slice the same."""
    return np.broadcast_to(slice_of_all, (1, *read(file).shape))


def test_keys_while_a_stroke_is_drawn_end_it(page: Page, server: Served) -> None:
    x, y = middle_of_axial_plane(page)
    page.keyboard.press("b")
    for key in ("Space", "n"):
        page.mouse.move(x - 60, y)
        page.mouse.down()
        page.mouse.move(x + 60, y - 60, steps=4)
        page.keyboard.press(key)
        page.mouse.move(x, y - 60, steps=4)
        page.mouse.up()
        if key == "Space":
            page.keyboard.press("z")  # the whole stroke; at the cross, where it began, Space draws nothing new
            page.keyboard.press("s")
            expect(page.locator("#message")).to_contain_text("Saved: 0 voxels")
    page.wait_for_selector(f"body[data-ready={SECOND}]")
    assert server.session.case_state(FIRST)["has_draft"]


def test_the_file_that_is_opened_leads_to_the_page(browser: Browser, server: Served, tmp_path: Path) -> None:
    context = patient_context(browser)
    page = context.new_page()
    with redirect_file(server.address, tmp_path) as file:
        page.goto(file.as_uri())
        page.wait_for_selector(f"body[data-ready={FIRST}]")
    assert page.url.startswith(server.address)
    context.close()


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_it_fits_on_screens_large_and_small(size: tuple[int, int], page: Page) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for button in ("#save", "#accept", "#skip", "#next"):
        box = page.locator(button).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]
