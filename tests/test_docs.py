"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import settings_page

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def quoted_code(page: Path) -> list[tuple[str, str]]:
    """(file, code) of every Python block that a comment above it says to be from a file of this repository."""
    return re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_settings_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.render(), "run python docs/settings_page.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_code_is_the_code(page: Path) -> None:
    for source, code in quoted_code(page):
        assert code in (REPOSITORY / source).read_text(), f"{page.name} quotes {source}, which says something else"


def test_every_block_of_the_worked_example_is_checked_and_its_file_is_shown_in_full() -> None:
    page = REPOSITORY / "docs" / "add-a-method.md"
    quotes = quoted_code(page)
    # the one block that is no quotation is run by tests/trainers/test_interpolation_consistency.py
    assert page.read_text().count("```python\n") == len(quotes) + page.read_text().count("<!-- outside the package -->")
    method = "nnunet_sfr/trainers/interpolation_consistency.py"
    shown = "".join(code for source, code in quotes if source == method)
    assert without_blank_lines(shown) == without_blank_lines((REPOSITORY / method).read_text())


def test_every_command_in_the_readme_exists() -> None:
    text = (REPOSITORY / "README.md").read_text()
    scripts = set(re.findall(r"^(sfr_\w+) = ", (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE))
    assert scripts
    assert set(re.findall(r"\bsfr_\w+", text)) == scripts
