"""Photograph a page of the report: ``python docs/figures/report_page.py PAGE``.

PAGE is the ``index.html`` of ``sfr_report``; the picture in the README shows ``demo_output/report`` of ``make demo``.
Needs Chromium and ``playwright`` (``pip install -e ".[dev]"``).
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

# Python puts the folder of a script on its path, and this script needs the one of the repository.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from PIL import Image

from nnunet_sfr.atomic import replacing
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, run
from nnunet_sfr.errors import UserError
from tests.browser import find_chromium, headless

PICTURE = Path(__file__).resolve().parent.parent / "images" / "report.png"
WIDTH, HEIGHT = 1280, 1400
"""Of the window, in CSS pixels."""
COLOURS = 128
"""Of the palette: the file is a quarter of one in full colour, and looks the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Photograph; the exit code is 1 for a mistake of the user."""
    options = _parser().parse_args(arguments)

    def command() -> None:
        photograph(options.page, options.output)
        print(options.output)

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def photograph(page: Path, picture: Path) -> None:
    """Write what a window of a desktop shows of a page, when its pictures are there.

    Raises:
        UserError: no page, or no browser.
    """
    if not page.is_file():
        raise UserError(f"{page}: not found; run make demo, or sfr_report, and name its index.html")
    program = find_chromium()
    if program is None:
        raise UserError("no Chromium on this machine; apt-get install chromium")
    with headless(program) as browser:
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        window.goto(page.resolve().as_uri(), wait_until="networkidle")
        shot = window.screenshot()
    with replacing(picture) as temporary:
        Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(temporary, optimize=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="docs/figures/report_page.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="index.html of a report")
    parser.add_argument("--output", type=Path, default=PICTURE, help=f"PNG to write ({PICTURE.name})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
