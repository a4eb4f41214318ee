"""What MkDocs cannot do by itself: pages that lie outside docs/, links to source files, and the page of commands.

MkDocs reads this file because mkdocs.yml names it. No part of it imports torch.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any
from unittest import mock

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Markdown files outside docs/ that are pages of the site: file in the repository, page."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in PAGES.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=rewritten(text, source, page, config.repo_url)))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links of a page of docs/ to files outside of it."""
    if page.file.generated_by:
        return markdown
    return rewritten(markdown, f"docs/{page.file.src_uri}", page.file.src_uri, config.repo_url)


def rewritten(markdown: str, source: str, page: str, repository_url: str | None) -> str:
    """The text with its links as they are on the site.

    Args:
        markdown: of a file in the repository.
        source: that file, relative to the repository.
        page: the page that it becomes, relative to docs/.
        repository_url: where source files can be read; without one, a link to a file becomes its name.
    """

    def link(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not path:
            return match.group(0)
        file = os.path.normpath(PurePosixPath(source).parent / path)
        if file.startswith("docs/") and (REPOSITORY / file).suffix in {".md", ".png"}:
            found = file.removeprefix("docs/")
        elif file in PAGES:
            found = PAGES[file]
        elif repository_url:
            return f"[{text}]({repository_url.rstrip('/')}/blob/main/{file})"
        else:
            return text if text.startswith("`") or text == file else f"{text} (`{file}`)"
        return f"{picture}[{text}]({os.path.relpath(found, PurePosixPath(page).parent)}{hash_sign}{anchor})"

    return LINK.sub(link, markdown)


def commands_page() -> str:
    """Every command with what it prints for ``-h``."""
    scripts = re.findall(
        r"^(sfr_\w+) = \"([\w.]+):main\"",
        (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    sections = [f"## `{name}`\n\n```text\n{help_text(name, module)}\n```\n" for name, module in scripts]
    introduction = "# Commands\n\nWhat each command prints for `-h`.\n"
    return "\n".join([introduction, *sections])


def help_text(name: str, module: str) -> str:
    """What a command prints for ``-h``, 100 columns wide."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [name, "-h"]),
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(module).main()
    return printed.getvalue().strip()
