"""The report as a page: one HTML file with its styles, scripts and values inside, which asks nothing of the network.

The pictures are small files below the page's folder or, for a page that is to be sent as one file, inside it. Every
value reaches the page as JSON and is shown as text, never as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from nnunet_sfr.atomic import replacing
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.contents import Contents

PAGE_NAME = "index.html"

ASSETS = Path(__file__).with_name("assets")
TEMPLATE = "page.html"
STYLE = "page.css"
SCRIPTS = (
    "elements.js",
    "state.js",
    "axes.js",
    "charts.js",
    "pool.js",
    "mosaics.js",
    "viewer.js",
    "tables.js",
    "crosscheck.js",
    "page.js",
)
"""In this order they are one script: the first makes what the others use, the last starts."""

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
"""By suffix; these are the pictures that browsers show."""

PLANES_SHAPE, MOSAIC_SHAPE = 3.0, 1.0
"""Width over height of the boxes where there are no pictures."""
LOOKED_AT = 25
"""The boxes of all pictures have the shape of the median of so many."""


def write_page(contents: Contents, folder: Path, *, single_file: bool = False) -> Path:
    """Write ``index.html``, atomically.

    Args:
        contents: what to show; its pictures are paths relative to ``folder``, with ``/`` between the parts.
        folder: where the pictures lie and the page goes.
        single_file: put the pictures into the page, which can then be moved by itself.

    Returns:
        The page.

    Raises:
        UserError: a picture is missing or of a kind that browsers do not show; or the disk is full.
    """
    planes = {name: _existing(folder, name) for name in _planes(contents)}
    mosaics = {name: _existing(folder, name) for name in _mosaics(contents)}
    shapes = {"planes": _shape(planes, PLANES_SHAPE), "mosaic": _shape(mosaics, MOSAIC_SHAPE)}
    pictures = {"shapes": shapes, "embedded": single_file}
    embedded = "".join(_embedded(name, file) for name, file in (planes | mosaics).items()) if single_file else ""
    page = folder / PAGE_NAME
    with replacing(page) as temporary:
        temporary.write_text(_page(asdict(contents), pictures, embedded), encoding="utf-8", newline="\n")
    return page


def pictures_of(contents: Contents) -> list[str]:
    """Every picture that a page shows, relative to it."""
    return [*_planes(contents), *_mosaics(contents)]


def _planes(contents: Contents) -> Iterator[str]:
    for case in contents.cases:
        yield from case.images.values()
        yield from (result.labels for result in case.results.values() if result.labels is not None)
    for example in contents.crosscheck.worst if contents.crosscheck is not None else ():
        yield from example.images.values()
        yield from (result.labels for result in example.results.values())


def _mosaics(contents: Contents) -> Iterator[str]:
    mosaics = (result.mosaic for case in contents.cases for result in case.results.values())
    for mosaic in mosaics:
        yield from (mosaic.image, mosaic.labels) if mosaic is not None else ()


def _existing(folder: Path, name: str) -> Path:
    file = folder / name
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the picture {name} does not lie below the page")
    if not file.is_file():
        raise UserError(f"{file}: this picture of the report is missing; make the report again")
    if file.suffix.lower() not in MEDIA_TYPES:
        raise UserError(f"{file}: browsers do not show this; pictures end in {', '.join(MEDIA_TYPES)}")
    return file


def _shape(pictures: dict[str, Path], otherwise: float) -> float:
    """Width over height of a typical picture; ``otherwise`` without any."""
    ratios = []
    for file in list(pictures.values())[:LOOKED_AT]:
        with Image.open(file) as picture:  # reads the size alone
            ratios.append(picture.width / picture.height)
    return round(statistics.median(ratios), 3) if ratios else otherwise


def _embedded(name: str, file: Path) -> str:
    """A picture as an element that browsers keep without looking at it, found by its name."""
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    uri = f"data:{MEDIA_TYPES[file.suffix.lower()]};base64,{content}"
    return f'<script type="text/plain" data-picture="{html.escape(name)}">{uri}</script>\n'


def _page(contents: dict[str, Any], pictures: dict[str, Any], embedded: str) -> str:
    style = _asset(STYLE)
    # Names of one script do not meet those that browsers keep in the window.
    script = "(() => {\n'use strict';\n" + "".join(map(_asset, SCRIPTS)) + "})();\n"
    parts = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "contents": _json(contents),
        "pictures": _json(pictures),
        "embedded": embedded,
    }
    # In one pass, so that nothing is looked for in what was put in.
    return re.sub(r"@@(\w+)@@", lambda found: parts[found[1]], _asset(TEMPLATE))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end the element around it: HTML sees no ``</script>`` and no ``<!--``."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")


def _policy(style: str, script: str) -> str:
    """What the page may do: run its own script, wear its own style, show pictures; it may ask the network for nothing.

    Were a value ever taken for HTML, no script in it would run.
    """
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
