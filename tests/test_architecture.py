"""Folders import each other in one direction, and file names stand in one place."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "nnunet_sfr"
IMPORT = re.compile(r"^\s*(?:from|import) nnunet_sfr\.([a-z_]+)", re.MULTILINE)


def imported_folders() -> dict[str, set[str]]:
    """The folders that each folder of the package imports, in functions too."""
    folders: dict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        folder = file.relative_to(PACKAGE).parts[0]
        if folder != file.name:
            names = set(IMPORT.findall(file.read_text(encoding="utf-8")))
            folders[folder] |= {name for name in names if (PACKAGE / name).is_dir()} - {folder}
    return dict(folders)


def test_no_two_folders_need_each_other() -> None:
    """Whatever both need lies below both."""
    folders = imported_folders()
    both = [(one, other) for one in folders for other in folders[one] if one < other and one in folders.get(other, ())]
    assert both == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "manifest.json",
            "splits_final.json",
            "dataset_fingerprint.json",
            "sfr_settings.json",
            "checkpoint_final.pth",
        ),
        *("checkpoint_latest.pth", "checkpoint_teacher.pth", "adapter_final.safetensors", "imagesTr", "labelsTr"),
        *("labelsTs", "sfr_raw_files.json", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "NNUNET_SFR_CACHE"),
    ],
)
def test_the_name_of_a_file_or_of_a_variable_that_leads_to_it_stands_in_paths_alone(name: str) -> None:
    files = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "entry_points").glob("*.py")]
    there = [str(file.relative_to(REPOSITORY)) for file in files if f'"{name}"' in file.read_text(encoding="utf-8")]
    assert there == [str(Path("nnunet_sfr", "paths.py"))]
