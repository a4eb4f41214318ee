"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import settings_page

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_settings_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.render(), "run python docs/settings_page.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_every_command_in_the_readme_exists() -> None:
    text = (REPOSITORY / "README.md").read_text()
    scripts = set(re.findall(r"^(sfr_\w+) = ", (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE))
    assert scripts
    assert set(re.findall(r"\bsfr_\w+", text)) == scripts
