"""The page in headless Chromium: it asks nothing of the network, sorts, filters, and shows every picture.

Skipped where playwright or a Chromium is missing.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.report.contents import Contents, ReportCase, ReportWindow, SourceResult
from nnunet_sfr.report.page import write_page
from tests.patience import wait_until
from tests.report.example_contents import make_contents
from tests.report.small_contents import HOSTILE, MODEL, SAM, small_contents, small_crosscheck

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LOWEST_FIRST = ["case_10", "case_2", HOSTILE, "case_1", "case_3"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="the page is tested in a browser: pip install playwright")
    from tests.browser import find_chromium, headless

    program = find_chromium()
    if program is None:
        pytest.skip("the page is tested in a browser: no Chromium or Chrome on the PATH")
    with headless(program) as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open a page; at the end of the test, it must have logged no error and asked for nothing but its own files."""
    from tests.browser import patient_context

    contexts, complaints, requests = [], [], []

    def open_page(file: Path, hash_: str = "", *, viewport: dict[str, int] = DESKTOP) -> Page:
        context = patient_context(browser, viewport=viewport)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: requests.append((file.parent, request.url)))
        page.goto(f"{file.resolve().as_uri()}{hash_}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    for folder, url in requests:
        parts = urlsplit(url)
        assert parts.scheme in ("file", "data", "blob"), url
        assert parts.scheme != "file" or Path(unquote(parts.path)).is_relative_to(folder), url


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, Path]:
    folder = tmp_path_factory.mktemp("small report")
    contents = small_contents(folder)
    return contents, write_page(contents, folder)


@pytest.fixture(scope="module")
def file(small: tuple[Contents, Path]) -> Path:
    return small[1]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    return write_page(make_contents(3, folder), folder)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the section of the cross-check."""
    folder = tmp_path_factory.mktemp("checked")
    return write_page(replace(small_contents(folder), crosscheck=small_crosscheck(folder)), folder)


def shown(page: Page) -> list[str]:
    return page.locator("#cards h3").all_text_contents()


def counted(page: Page) -> str:
    return page.locator("#cases .count").inner_text()


def wait_for(page: Page, condition: str) -> None:
    """Until an expression holds; Playwright's own wait evaluates text in the page, which its policy forbids."""
    wait_until(lambda: page.evaluate(condition), condition)


def wait_for_focus(page: Page, label: str) -> None:
    """Until an element has the focus: a dialog that closes tells the page so a moment later."""
    wait_until(lambda: page.evaluate("document.activeElement.ariaLabel") == label, f"focus on {label}")


def load_pictures(page: Page) -> int:
    """How many pictures there are, all of them loaded."""
    wait_for(page, "[...document.images].every((image) => image.complete)")
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert all(width > 0 for width in widths)
    return len(widths)


def test_hostile_name_is_shown_as_it_is(visit: Open, file: Path) -> None:
    page = visit(file)
    assert page.title() == "Dataset007_Tiny – SFR report"  # noqa: RUF001
    assert shown(page) == LOWEST_FIRST
    assert page.locator("#cards h3").nth(2).evaluate("node => node.childNodes.length") == 1
    assert page.locator("#cases .legend li").all_inner_texts() == ["<b>heart</b>"]


def test_head(visit: Open, file: Path) -> None:
    page = visit(file)
    assert page.locator("h1").inner_text() == "Dataset007_Tiny"
    assert page.locator(".origin dd").all_inner_texts() == ["3d_fullres", "nnUNetPlans", "all", "2026-11-21 22:30"]
    assert page.locator(".tiles dd").all_inner_texts() == ["5"]
    assert page.locator(".facts dd").all_text_contents()[0].startswith("a sentence")
    assert page.locator(".alerts li").all_inner_texts() == [
        "model, round 1: 1 of 2 classes found in none of the 4 cases: <i>aorta</i>",
        "model, round 1: no foreground in 1 of 4 cases\ncase_10\nshow it",
    ]
    page.get_by_role("button", name="case_10", exact=True).first.click()
    assert page.evaluate("document.activeElement.dataset.case") == "case_10"
    page.select_option("#source", SAM)
    page.get_by_role("button", name="show it").click()
    assert page.input_value("#source") == MODEL
    assert shown(page) == ["case_10"]
    page.get_by_role("button", name="Reset").click()
    assert page.locator(".missing li").all_inner_texts() == ["Curves of SAM are missing: sfr_finetune makes them."]


def test_sorting(visit: Open, file: Path) -> None:
    page = visit(file)
    expected = {
        "name": [HOSTILE, "case_1", "case_2", "case_3", "case_10"],
        "volume-1": ["case_10", "case_2", "case_1", HOSTILE, "case_3"],
        "disagreement": ["case_2", "case_1", HOSTILE, "case_3", "case_10"],
        "rank": ["case_10", "case_2", HOSTILE, "case_1", "case_3"],
        "confidence": LOWEST_FIRST,
    }
    for key, order in expected.items():
        page.select_option("select[name=sort]", key)
        assert shown(page) == order, key


def test_other_direction_and_other_source(visit: Open, file: Path) -> None:
    page = visit(file)
    page.select_option("select[name=order]", "descending")
    assert shown(page) == ["case_1", HOSTILE, "case_2", "case_10", "case_3"]
    page.select_option("#source", SAM)
    assert shown(page) == ["case_1", "case_2", HOSTILE, "case_3", "case_10"]
    assert page.locator("#cards .confidence .value").all_inner_texts() == ["0.8000", "0.7000", "0.6000", "0.5000"]


def test_filters_hide_the_others(visit: Open, file: Path) -> None:
    page = visit(file)
    assert counted(page) == "5 of 5 cases"
    control = page.locator(".controls").locator
    filters: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: control("[name=text]").fill("CASE_1"), ["case_10", "case_1"]),
        (lambda: control("[name=side]").select_option("1-low"), ["case_10", "case_2"]),
        (lambda: control("[name=outliers]").check(), ["case_2"]),
        (lambda: control("[name=empty]").check(), ["case_10"]),
        (lambda: control("[name=annotate]").check(), ["case_10", "case_2"]),
        (lambda: control("[name=from]").fill("0.9"), [HOSTILE, "case_1"]),
        (lambda: control("[name=to]").fill("0.9"), ["case_2", HOSTILE]),
    ]
    for choose, expected in filters:
        choose()
        assert shown(page) == expected
        assert counted(page) == f"{len(expected)} of 5 cases"
        page.get_by_role("button", name="Reset").click()
        assert shown(page) == LOWEST_FIRST


def test_a_case_is_empty_where_a_class_has_no_volume_or_none_is_listed(
    visit: Open, small: tuple[Contents, Path], tmp_path: Path
) -> None:
    volumes: dict[str, dict[str, float]] = {"zero": {"1": 0.0}, "unlisted": {}, "full": {"1": 1.0}}
    cases = [ReportCase(name, {MODEL: SourceResult(0.5, volume)}) for name, volume in volumes.items()]
    page = visit(write_page(replace(small[0], cases=cases), tmp_path))
    page.locator(".controls [name=empty]").check()
    assert set(shown(page)) == {"zero", "unlisted"}


def test_address_keeps_what_was_chosen(visit: Open, file: Path) -> None:
    page = visit(file)
    page.select_option("select[name=sort]", "name")
    page.fill("input[name=text]", "case & 1%")
    page.fill("input[name=text]", "case_1")
    page.select_option("#source", SAM)
    hash_ = page.evaluate("location.hash")
    again = visit(file, hash_)
    assert shown(again) == ["case_1", "case_10"]
    assert again.input_value("input[name=text]") == "case_1"
    assert again.input_value("#source") == SAM
    again.evaluate("location.hash = 'sort=name&order=descending&page=7&source=unknown&size=3'")
    wait_for(again, "document.querySelector('#cards h3').textContent === 'case_10'")
    assert shown(again) == ["case_10", "case_3", "case_2", "case_1", HOSTILE]
    assert again.input_value("#source") == MODEL


def test_the_skip_link_leaves_what_was_chosen(visit: Open, file: Path) -> None:
    page = visit(file)
    page.fill("input[name=text]", "case_1")
    before = page.evaluate("location.hash")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.evaluate("location.hash") == before
    assert set(shown(page)) == {"case_1", "case_10"}


def test_every_picture_loads(visit: Open, file: Path) -> None:
    page = visit(file)
    # grey and labels of three cases, labels of a case without images, images of one without labels of this source
    assert page.locator("#cards img").count() == 2 + 2 + 1 + 1 + 1
    assert page.locator("#mosaics img").count() == 4 * 2
    assert load_pictures(page) == 15


def test_single_file_needs_nothing_beside_it(visit: Open, small: tuple[Contents, Path], tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(small[1].parent, folder)
    page_file = write_page(small[0], folder, single_file=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.move(page_file, alone)
    shutil.rmtree(folder)
    page = visit(alone / "index.html")
    assert shown(page) == LOWEST_FIRST
    assert load_pictures(page) == 15


def test_picture_opens_large(visit: Open, file: Path) -> None:
    page = visit(file)
    viewer, title = page.locator("#viewer"), page.locator("#viewer-title")

    def shown_large() -> list[str]:
        sources: list[str] = page.locator("#viewer img").evaluate_all(
            "all => all.map((one) => one.getAttribute('src'))"
        )
        return sources

    page.get_by_role("button", name="Show case_1 large").first.click()
    assert title.inner_text() == "case_1"
    assert shown_large() == ["pictures/soft_tissue_1.png", "pictures/model%201%23%3F.png"]
    page.keyboard.press("h")
    assert shown_large() == ["pictures/soft_tissue_1.png"]
    page.keyboard.press("w")
    assert shown_large() == ["pictures/lung_1.png"]
    page.keyboard.press("h")
    page.keyboard.press("ArrowUp")
    assert shown_large() == ["pictures/lung_1.png", "pictures/sam_1.png"]
    assert load_pictures(page)
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "case_3"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "case_2"
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == "case_10"
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    wait_for_focus(page, "Show case_10 large")


def test_labels_lie_exactly_over_their_image(visit: Open, file: Path) -> None:
    page = visit(file)
    boxes = page.locator(".layers:has(img + img)").evaluate_all(
        "all => all.map((one) => [...one.children].map((image) => JSON.stringify(image.getBoundingClientRect())))"
    )
    assert len(boxes) == 2 + 4
    assert all(image == labels for image, labels in boxes)
    page.get_by_role("button", name="Show case_1 large").first.click()
    load_pictures(page)
    image, labels = page.locator("#viewer img").evaluate_all(
        "all => all.map((image) => JSON.stringify(image.getBoundingClientRect()))"
    )
    assert image == labels


def test_another_window_shows_other_pictures(visit: Open, file: Path) -> None:
    page = visit(file)
    page.select_option("#window", "lung")
    first = page.locator("[data-case=case_1] img").first
    assert first.get_attribute("src") == "pictures/lung_1.png"
    again = visit(file, page.evaluate("location.hash"))
    assert again.input_value("#window") == "lung"
    again.get_by_role("button", name="Reset").click()
    assert again.input_value("#window") == "lung"


def test_every_picture_is_in_a_tall_screenshot_and_in_print(visit: Open, tmp_path: Path) -> None:
    """White pictures on black grounds: none of the grounds stays dark."""
    name = "pictures/white.png"
    (tmp_path / "pictures").mkdir()
    Image.new("L", (300, 100), 255).save(tmp_path / name)
    cases = [
        ReportCase(f"c{number:03d}", {MODEL: SourceResult(0.5, {})}, images={"lung": name}) for number in range(100)
    ]
    contents = replace(small_contents(tmp_path), cases=cases, windows=[ReportWindow("lung", "lung")])
    page = visit(write_page(contents, tmp_path), "#size=0")
    wait_for(page, "[...document.images].every((image) => image.complete)")
    page.screenshot(path=tmp_path / "tall.png", full_page=True)
    with Image.open(tmp_path / "tall.png") as picture:
        tall = np.asarray(picture.convert("L"))
    boxes = page.locator(".thumbnail").evaluate_all(
        "all => all.map((one) => { const box = one.getBoundingClientRect();"
        " return [box.left + scrollX, box.top + scrollY, box.width, box.height]; })"
    )
    assert len(boxes) == 100
    for left, top, width, height in boxes:
        assert tall[int(top + height / 2), int(left + width / 2)] == 255, (left, top)
    printed = page.pdf(print_background=False)
    # the same picture, once, drawn a hundred times over several pages
    assert printed.count(b"/Subtype /Image") >= 1
    assert printed.count(b"/Type /Page\n") > 10


def test_histogram_counts_and_filters(visit: Open, file: Path) -> None:
    page = visit(file)
    chart = page.locator("#confidence .chart").nth(1)
    assert chart.locator("p").inner_text() == (
        "estimated dice · threshold 0.85: 2 at or above, 1 below · 1 case without confidence (nothing found)"
    )
    assert chart.locator("rect.high").count() == 2
    low = chart.locator("rect.low")
    assert low.count() == 1
    low.hover()
    assert page.locator("#tip").inner_text().splitlines() == ["0.700 to 0.710: 1 case", "click to see them"]
    low.click()
    assert shown(page) == ["case_2"]


def test_outlier_leads_to_its_case(visit: Open, file: Path) -> None:
    page = visit(file)
    page.fill("input[name=text]", "case_1")
    outlier = page.locator("#volumes svg path.outlier")
    assert outlier.count() == 1
    outlier.hover()
    assert page.locator("#tip").inner_text().splitlines() == ["case_2", "<b>heart</b>: 5.00 ml, outlier"]
    outlier.click()
    assert page.evaluate("document.activeElement.dataset.case") == "case_2"
    assert page.input_value("input[name=text]") == ""


def test_the_cross_check_shows_the_worst_cases(visit: Open, checked: Path) -> None:
    page = visit(checked)
    section = page.locator("#crosscheck")
    assert section.locator(".verdict").inner_text() == "SFR may help: <i>few</i> cases"
    assert section.locator(".outdated").inner_text() == "made with <b>other</b> cases; run sfr_crosscheck"
    assert section.locator("tbody th").all_inner_texts() == ["<b>heart</b>"]
    assert section.locator(".left-out h4").all_inner_texts() == [HOSTILE, "left_3"]
    assert section.locator(".left-out-text").all_inner_texts()[:3] == [
        "truth",
        "SAM: Dice 0.500",
        "nnU-Net: Dice 0.750 \N{MIDDLE DOT} <b>heart</b> 0.700 \N{MIDDLE DOT} aorta 0.800",
    ]
    assert section.locator("img").count() == 2 * 3 * 2
    assert load_pictures(page)

    def large() -> list[str]:
        return [str(one.get_attribute("src")) for one in page.locator("#viewer img").all()]

    section.get_by_role("button", name="Show SAM of left_3 large").click()
    assert large() == ["pictures/left_out_soft_tissue_2.png", "pictures/left_out_sam_2.png"]
    page.keyboard.press("ArrowUp")
    assert large()[1] == "pictures/left_out_truth_2.png"
    assert page.locator(".viewer-text").inner_text() == "truth"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    assert page.locator("#viewer-title").inner_text() == HOSTILE
    assert large() == ["pictures/left_out_lung_1.png", "pictures/left_out_truth_1.png"]
    page.keyboard.press("Escape")
    wait_for_focus(page, f"Show truth of {HOSTILE} large")
    assert section.locator("img").first.get_attribute("src") == "pictures/left_out_lung_1.png"


def test_confidence_against_dice(visit: Open, checked: Path) -> None:
    page = visit(checked)
    charts = page.locator("#crosscheck .chart")
    assert charts.locator("h4").all_inner_texts() == ["flip agreement", "sam agreement"]
    assert charts.first.locator(".legend li").all_inner_texts() == [
        "SAM: rank correlation 0.50",
        "nnU-Net: rank correlation \N{EN DASH}",
    ]
    dots = charts.first.locator(".chart-box .marker-0")
    assert dots.count() == 3
    assert charts.first.locator(".chart-box .marker-1").count() == 2
    assert charts.nth(1).locator(".chart-box .marker-0").count() == 0
    dots.first.hover()
    assert page.locator("#tip").inner_text().splitlines() == [HOSTILE, "SAM: Dice 0.500", "confidence 0.6000"]
    dots.first.click()
    assert page.locator("#viewer-title").inner_text() == HOSTILE
    page.keyboard.press("Escape")
    dots.nth(1).click()
    assert not page.locator("#viewer").is_visible(), "this case has no pictures"


def test_annotation_list_as_csv(visit: Open, file: Path, tmp_path: Path) -> None:
    page = visit(file)
    with page.expect_download() as started:
        page.get_by_role("button", name="Save as CSV").click()
    assert started.value.suggested_filename == "Dataset007_Tiny_annotate_next.csv"
    started.value.save_as(tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["rank", "case", "reasons", "disagreement", f"confidence_{SAM}", f"confidence_{MODEL}"],
        ["1", "case_10", "nothing was found", "", "", ""],
        ["2", "case_2", 'not sure; says "no", twice', "0.6", "0.7", "0.7"],
    ]


def test_settings_that_were_edited_are_marked(visit: Open, file: Path) -> None:
    page = visit(file)
    assert page.locator("#settings summary").all_text_contents() == ["rounds1 edited", "Versions"]
    page.locator("#settings summary").first.click()
    assert page.locator("#settings tr.edited th").all_inner_texts() == ["tau"]
    cell = page.locator("#settings tr.edited td").first
    assert cell.evaluate("node => getComputedStyle(node, '::after').content") == '" (edited)"'


def test_sections_without_contents_are_left_out(
    visit: Open, file: Path, small: tuple[Contents, Path], tmp_path: Path
) -> None:
    page = visit(file)
    everything = ["cases", "annotate", "mosaics", "confidence", "volumes"]
    everything += ["disagreement", "training", "rounds", "settings"]
    assert page.locator("main section").evaluate_all("nodes => nodes.map((node) => node.id)") == everything
    assert page.locator("nav a").count() == len(everything)
    bare = replace(
        small[0],
        sources=[],
        cases=[],
        facts=[],
        trainings=(),
        rounds=None,
        settings=(),
        versions=None,
        missing=(),
        alerts=(),
    )
    page = visit(write_page(bare, tmp_path))
    assert page.locator("main section, nav a, .missing").count() == 0
    assert page.locator("h1").inner_text() == "Dataset007_Tiny"


def test_pages_of_cards(visit: Open, small: tuple[Contents, Path], tmp_path: Path) -> None:
    cases = [ReportCase(f"c{number}", {MODEL: SourceResult(number / 100, {"1": 1.0})}) for number in range(61)]
    cases[50] = replace(cases[50], annotation_rank=1)
    page = visit(write_page(replace(small[0], cases=cases), tmp_path))
    names = [case.name for case in cases]
    assert shown(page) == names[:24]
    assert page.locator("#cards.many").count() == 0
    page.locator("#cases .pages").get_by_role("button", name="Next").click()
    assert shown(page) == names[24:48]
    page.select_option("#cases .pages select", "0")
    assert shown(page) == names
    assert page.locator("#cards.many").count() == 1
    page.select_option("#cases .pages select", "24")
    page.get_by_role("button", name="c50", exact=True).click()
    assert shown(page) == names[48:]
    assert page.evaluate("document.activeElement.dataset.case") == "c50"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_window(
    visit: Open, file: Path, example: Path, checked: Path, viewport: dict[str, int]
) -> None:
    for one in (file, example, checked):
        page = visit(one, viewport=viewport)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        sizes = page.evaluate("[...document.querySelectorAll('svg text')].map((one) => getComputedStyle(one).fontSize)")
        assert set(sizes) == {"12px"}
        assert page.evaluate("[...document.querySelectorAll('svg[role=img]')].every((one) => one.clientWidth > 200)")
