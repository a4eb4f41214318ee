"""A file that leads a browser to the page: its command line, which all users of a machine can read, has no token."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterator
from pathlib import Path

_CONTENT = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>SFR review</title>
<p><a href="{address}">SFR review</a></p>
"""


@contextlib.contextmanager
def redirect_file(address: str, folder: Path) -> Iterator[Path]:
    """Write an HTML file that only its owner can read, and delete it when the context ends; gives its absolute path.

    Args:
        address: of the page, with its token.
        folder: of the review; browsers from snap or flatpak do not see the system's temporary files.
    """
    file = folder.absolute() / "open.html"
    file.unlink(missing_ok=True)  # of a review that was killed
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(_CONTENT.format(address=html.escape(address)))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
