"""No conversion of a test reads or leaves anything in the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checked cases are noted."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NNUNET_SFR_CACHE", str(folder))
    return folder
