"""The page as a file: what is in it, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.report.contents import Contents, ReportCase
from nnunet_sfr.report.page import write_page
from tests.report.small_contents import HOSTILE, draw, small_contents


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return small_contents(tmp_path)


def data_of(page: Path, name: str) -> Any:
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def test_values_are_json_that_cannot_end_its_element(contents: Contents, tmp_path: Path) -> None:
    page = write_page(contents, tmp_path)
    html = page.read_text(encoding="utf-8")
    assert page == tmp_path / "index.html"
    assert data_of(page, "contents") == json.loads(json.dumps(asdict(contents)))
    assert data_of(page, "contents")["cases"][0]["name"] == HOSTILE
    assert html.count("</script>") == 3
    assert "<!--" not in html
    assert "onerror" in html
    assert "<img" not in html
    assert "@@" not in html


def test_pictures_are_files_or_inside(contents: Contents, tmp_path: Path) -> None:
    files = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in tmp_path.rglob("*.png")}
    assert data_of(write_page(contents, tmp_path), "pictures") == {
        "shapes": {"planes": 3.0, "mosaic": 1.0},
        "embedded": False,
    }
    page = write_page(contents, tmp_path, single_file=True)
    embedded = dict(
        re.findall(r'<script type="text/plain" data-picture="(.*?)">(.*?)</script>', page.read_text(encoding="utf-8"))
    )
    assert set(embedded) == set(files)
    for name, uri in embedded.items():
        kind, _, content = uri.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == files[name]


def test_boxes_have_the_shape_of_most_pictures(contents: Contents, tmp_path: Path) -> None:
    sizes = [(40, 10), (50, 10), (50, 10)]
    cases = [
        ReportCase(f"c{index}", {}, images={"lung": draw(f"{index}.png", tmp_path, size)})
        for index, size in enumerate(sizes)
    ]
    page = write_page(replace(contents, cases=cases), tmp_path)
    assert data_of(page, "pictures")["shapes"] == {"planes": 5.0, "mosaic": 1.0}


def test_missing_picture_leaves_the_older_page(contents: Contents, tmp_path: Path) -> None:
    older = write_page(contents, tmp_path).read_text(encoding="utf-8")
    picture = tmp_path / "pictures" / "sam_1.png"
    picture.unlink()
    with pytest.raises(UserError, match=r"sam_1\.png: this picture of the report is missing; make the report again"):
        write_page(contents, tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == older
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index.html"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("plane.tif", pytest.raises(UserError, match=r"plane\.tif: browsers do not show this")),
        ("../plane.png", pytest.raises(ValueError, match="does not lie below the page")),
    ],
)
def test_pictures_that_no_page_can_show(contents: Contents, tmp_path: Path, name: str, error: Any) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    case = ReportCase("c", {}, images={"lung": draw(name, folder)})
    with error:
        write_page(replace(contents, cases=[case]), folder)
    assert not (folder / "index.html").exists()


def test_values_that_json_has_not_are_refused(contents: Contents, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_page(replace(contents, cases=[ReportCase("c", {}, disagreement=float("nan"))]), tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_page_needs_no_torch() -> None:
    script = "import sys, nnunet_sfr.report.page; print([n for n in ('torch', 'nnunetv2') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
