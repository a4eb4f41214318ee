"""Imports lead in one direction, file names stand in one place, and the page on the architecture names every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from nnunet_sfr import paths
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "nnunet_sfr"

WORDS = {"TRAINER_PREFIX", "VALIDATION"}
"""Constants of paths.py that are words with other meanings too."""
NAMES = sorted(
    value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str) and name not in WORDS
)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All of them, those in functions too; what is imported for types alone is left out."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


def imported_modules() -> dict[str, set[str]]:
    """The modules of the package that each of them imports."""
    files = {module_name(file): file for file in PACKAGE.rglob("*.py")}
    modules: dict[str, set[str]] = {}
    for module, file in files.items():
        found = set()
        for node in statements(parsed(file)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    found.add(submodule if submodule in files else str(node.module))
        # the package itself holds the version alone
        modules[module] = found & files.keys() - {module, PACKAGE.name}
    return modules


def folder_of(module: str) -> str | None:
    """The folder of the package that a module lies in; None for one that lies in the package itself."""
    name = module.split(".")[1] if "." in module else ""
    return name if name and (PACKAGE / name).is_dir() else None


def test_no_modules_need_each_other() -> None:
    """Not even over others: whatever several need lies below all of them."""
    modules = imported_modules()
    assert len(modules["nnunet_sfr.trainers.mean_teacher"]) > 1
    TopologicalSorter(modules).prepare()


def test_no_folders_need_each_other() -> None:
    folders: dict[str, set[str]] = {}
    for module, imported in imported_modules().items():
        if (folder := folder_of(module)) is not None:
            needed = {other for name in imported if (other := folder_of(name)) is not None}
            folders.setdefault(folder, set()).update(needed - {folder})
    assert "data" in folders["trainers"]
    TopologicalSorter(folders).prepare()


@pytest.fixture(scope="module")
def texts() -> dict[str, set[str]]:
    """Every text that stands in quotes, in f-strings too, by file."""
    files = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "entry_points").glob("*.py")]
    return {
        file.relative_to(REPOSITORY).as_posix(): {
            node.value for node in ast.walk(parsed(file)) if isinstance(node, ast.Constant) and type(node.value) is str
        }
        for file in files
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_stands_in_paths_alone(name: str, texts: dict[str, set[str]]) -> None:
    assert [file for file, found in texts.items() if name in found] == ["nnunet_sfr/paths.py"]


def test_every_module_of_the_package_is_named() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py")]
    names = {f"{file.parent.name}/" if file.name == "__init__.py" else file.name for file in files}
    assert sorted(name for name in names - {f"{PACKAGE.name}/"} if f"`{name}`" not in page) == []
