"""A raw data set that nothing is planned for yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_sfr.planning import fingerprint
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import nnunet_folders


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder in ``nnUNet_preprocessed``, which does not exist."""
    monkeypatch.setattr(fingerprint, "FOREGROUND_SAMPLES", 6000)
    with nnunet_folders(tmp_path):
        make_raw_dataset(tmp_path / "nnUNet_raw", labelled=2)
        yield tmp_path / "nnUNet_preprocessed" / NAME
