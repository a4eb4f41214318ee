"""What the page is made of: NiiVue as published, with its licence, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from nnunet_sfr.review.application import ASSETS

OURS = sorted(file for file in ASSETS.glob("*") if file.is_file())


def test_niivue_is_the_published_file() -> None:
    folder = ASSETS / "niivue"
    pinned = json.loads((folder / "niivue.json").read_text(encoding="utf-8"))
    content = (folder / pinned["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == pinned["sha256"]
    assert pinned["version"].encode() in content
    assert (folder / "LICENSE").read_text(encoding="utf-8").startswith("BSD 2-Clause License")
    licences = (folder / "THIRD_PARTY_LICENSES.txt").read_text(encoding="utf-8")
    for package in ("gl-matrix", "nifti-reader-js", "fflate", "zarrita", "numcodecs"):
        assert package in licences


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_ours_asks_nothing_of_the_network(file: Path) -> None:
    assert not re.search(r"https?://|//cdn|@import|url\(", file.read_text(encoding="utf-8"))


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    """Which the content policy would not run."""
    html = (ASSETS / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*src=)", html) == []
    assert "<style" not in html
    assert re.findall(r"\s(?:style|on\w+)=", html) == []
    for name in re.findall(r'(?:src|href)="(assets/[^"]+)"', html):
        assert (ASSETS.parent / name).is_file()
