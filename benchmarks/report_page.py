"""How long a report of many cases takes to open: ``python benchmarks/report_page.py``.

A report of made-up cases with pictures is opened in headless Chromium, from disk, each time in a new profile, in turns
with an empty page. Measured from the start of the navigation, by the browser's own clock: when the first cards are
there, when all pictures of the first window are, and when the load event ends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from benchmarks.options import positive_number
from benchmarks.report import aligned_table, circumstances, replace_section, with_facts
from nnunet_sfr.atomic import replacing
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, run
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.page import PAGE_NAME, write_page
from tests.browser import find_chromium, headless
from tests.report.example_contents import make_contents

if TYPE_CHECKING:
    from playwright.sync_api import Browser

README = Path(__file__).with_name("README.md")
SECTION = "report_page"
EMPTY, FILES, SINGLE = "empty page", "report, pictures as files", "report, one file"
MIB = 2**20

WATCH = """
const look = () => {
  if (document.querySelector(".card")) {
    const pictures = [...document.images].filter((image) => image.getBoundingClientRect().top < innerHeight);
    window.cardsAt ??= performance.now();
    if (pictures.every((image) => image.complete && image.naturalWidth > 0)) {
      window.picturesAt = performance.now();
      return;
    }
  }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
"""Runs in the page before its own scripts, and looks before each frame at what the one before has shown."""

TIMES = "[window.cardsAt, window.picturesAt, performance.getEntriesByType('navigation')[0].loadEventEnd]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table.

    Returns:
        The exit code: 1 for a mistake of the user.
    """
    options = _parser().parse_args(arguments)

    def command() -> None:
        with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
            pages = _pages(Path(folder), options.cases)
            report = _measured(pages, options)
        print(report)
        if options.update_readme:
            replace_section(README, SECTION, report)

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def _pages(folder: Path, cases: int) -> dict[str, Path]:
    """Write the pages to open, each ``index.html`` in a folder of its own."""
    whole = folder / "files"
    contents = make_contents(cases, whole)
    single = folder / "single" / PAGE_NAME
    with replacing(single) as temporary:
        write_page(contents, whole, single_file=True).rename(temporary)
    empty = folder / "empty" / PAGE_NAME
    with replacing(empty) as temporary:
        temporary.write_text("<!doctype html><html lang=en><title>empty</title><p class=card>empty</p></html>\n")
    return {EMPTY: empty, FILES: write_page(contents, whole), SINGLE: single}


def _measured(pages: dict[str, Path], options: argparse.Namespace) -> str:
    program = find_chromium()
    if program is None:
        raise UserError("no Chromium or Chrome on the PATH; install one (Debian: apt-get install chromium)")
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in pages}
    with headless(program) as browser:
        software = f"Chromium {browser.version}"
        _open(browser, pages[EMPTY])  # the first navigation starts processes that the others find
        for _ in tqdm(range(options.repeats), desc="Opening", disable=None):
            for name, page in pages.items():
                times[name].append(_open(browser, page))
    facts = {
        "cases": f"{options.cases} with three sources, 24 cards on the first page",
        "timing": f"median of {options.repeats} turns",
        "browser": f"{software}, headless, 1280 x 720",
        **{name: fact for name, fact in circumstances("cpu", 1).items() if name not in ("device", "software")},
    }
    return with_facts(_table(pages, times), facts)


def _open(browser: Browser, page: Path) -> tuple[float, ...]:
    """Milliseconds until the first cards are there, until their pictures are, and until the load event ends."""
    context = browser.new_context()
    try:
        tab = context.new_page()
        tab.add_init_script(WATCH)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_function("window.picturesAt !== undefined")
        times = tuple(map(float, tab.evaluate(TIMES)))
    finally:
        context.close()
    return times


def _table(pages: dict[str, Path], times: dict[str, list[tuple[float, ...]]]) -> str:
    """Markdown; the empty page is the measure of the others."""
    medians = {name: [statistics.median(one) for one in zip(*turns, strict=True)] for name, turns in times.items()}
    cells = [["opening", "page (MiB)", "cards (s)", "pictures (s)", "ratio", "slowest (s)", "load event (s)", "ratio"]]
    for name, page in pages.items():
        cards, pictures, loaded = medians[name]
        slowest = max(pictures for _, pictures, _ in times[name])
        numbers = [
            f"{page.stat().st_size / MIB:.2f}",
            f"{cards / 1000:.3f}",
            f"{pictures / 1000:.3f}",
            f"{pictures / medians[EMPTY][1]:.1f}",
            f"{slowest / 1000:.3f}",
            f"{loaded / 1000:.3f}",
            f"{loaded / medians[EMPTY][2]:.1f}",
        ]
        cells.append([name, *numbers])
    return aligned_table(cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/report_page.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", type=positive_number, default=1000, metavar="N", help="in the report (1000)")
    parser.add_argument("--repeats", type=positive_number, default=7, metavar="N", help="times that each is opened (7)")
    parser.add_argument("--folder", type=Path, help="keep the pages here (default: a temporary folder)")
    parser.add_argument("--update-readme", action="store_true", help="write the table into benchmarks/README.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
