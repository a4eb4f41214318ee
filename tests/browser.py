"""Headless Chromium of the system, since playwright's own browsers are large downloads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.patience import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_MS = 1000 * PATIENCE


def find_chromium() -> str | None:
    """Path of the program; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


@contextmanager
def headless(program: str, *arguments: str) -> Iterator[Browser]:
    """A browser without a window; Chromium gets ``arguments``."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, who runs the tests in containers.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", *arguments], timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


def patient_context(browser: Browser, **options: Any) -> BrowserContext:
    """Tabs that wait as long as every test does; ``options`` are playwright's."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context
