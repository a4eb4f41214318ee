"""Which part of the package imports what: rules of docs/architecture.md, and dependencies that one command needs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "nnunet_sfr"

IMPORT_NAMES = {"pillow": "PIL", "segment-anything": "segment_anything", "acvl-utils": "acvl_utils"}
"""Names in pyproject.toml that are imported under another one."""
NOT_IMPORTED = {"torchvision": "imported by segment-anything"}

ONLY_THERE = {
    "accelerate": ("sam_stage",),
    "h5py": ("conversion",),
    "monai": ("evaluation",),
    "packaging": ("doctor",),
    "peft": ("sam_stage",),
    "PIL": ("report",),
    "segment_anything": ("sam_stage",),
    "starlette": ("review",),
    "timm": ("sam_stage",),
    "uvicorn": ("review",),
}
"""Dependencies of one command, and the folder that imports them."""

NEVER = {"trainers": "sam_stage", "sam_stage": "trainers", "labelling": "trainers|sam_stage"}
"""Folders that do not import each other."""


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def imports_of_package() -> Iterator[tuple[str, str]]:
    """(file relative to the package, module)."""
    for folder in (PACKAGE, REPOSITORY / "entry_points"):
        for file in sorted(folder.rglob("*.py")):
            name = file.relative_to(PACKAGE if folder == PACKAGE else REPOSITORY).as_posix()
            yield from ((name, module) for module in imported(file))


def declared() -> set[str]:
    """Import names of the dependencies in pyproject.toml."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    [dependencies] = re.findall(r"^dependencies = \[(.*?)^\]", text, flags=re.DOTALL | re.MULTILINE)
    names = re.findall(r'^    "([\w-]+)', dependencies, flags=re.MULTILINE)
    return {IMPORT_NAMES.get(name, name) for name in names if name not in NOT_IMPORTED}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    found = {module.partition(".")[0] for _, module in imports_of_package()}
    third_party = found - set(sys.stdlib_module_names) - {"nnunet_sfr", "nnunet_sfr_trainers"}
    assert third_party == declared()


@pytest.mark.parametrize("module", ONLY_THERE)
def test_what_one_command_needs_is_imported_there_alone(module: str) -> None:
    users = {name.partition("/")[0] for name, found in imports_of_package() if found.partition(".")[0] == module}
    assert users <= set(ONLY_THERE[module])


@pytest.mark.parametrize("folder", NEVER)
def test_folders_that_do_not_know_each_other(folder: str) -> None:
    found = {
        f"{name} imports {module}"
        for name, module in imports_of_package()
        if name.startswith(f"{folder}/") and re.match(rf"nnunet_sfr\.({NEVER[folder]})\b", module)
    }
    assert not found
