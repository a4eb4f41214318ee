"""Public functions say what their arguments are, and what docstrings refer to exists."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs.docstrings import public_functions
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "nnunet_sfr"
REFERENCE = re.compile(r":(?:class|func|meth|attr|data|mod):`([\w.]+)`")


def test_public_functions_explain_their_arguments() -> None:
    found = public_functions()
    assert len(found) > 200
    assert [function.where for function in found if not function.explained] == []


@dataclass
class Module:
    """What a file defines or imports, what its classes have, and what its texts refer to."""

    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    references: set[str] = field(default_factory=set)


def read_module(file: Path) -> Module:
    module, tree = Module(), ast.parse(file.read_text(encoding="utf-8"))
    module.names = {name for statement in tree.body for name in defined(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            module.members |= {name for statement in node.body for name in defined(statement)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module.references |= set(REFERENCE.findall(node.value))
    return module


def defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        yield from (name.id for name in ast.walk(target or ast.Pass()) if isinstance(name, ast.Name))


def test_what_docstrings_refer_to_exists() -> None:
    """A name of another module is written with its module, unless it is imported."""
    files = [*PACKAGE.rglob("*.py")]
    modules = {".".join(file.relative_to(REPOSITORY).with_suffix("").parts): read_module(file) for file in files}
    modules |= {name.removesuffix(".__init__"): module for name, module in modules.items()}
    members = set().union(*(module.members for module in modules.values()))

    def exists(reference: str, module: Module) -> bool:
        if not reference.startswith(PACKAGE.name):
            first, _, rest = reference.partition(".")
            # of a class of this module, or of one that it is a base or a part of
            return first in module.names | sys.stdlib_module_names or (not rest and first in members)
        place = reference
        while place not in modules:
            place = place.rpartition(".")[0]
        names = reference.removeprefix(place).split(".")[1:]
        return not names or (names[0] in modules[place].names and members.issuperset(names[1:]))

    lost = {
        f"{name}: {one}" for name, module in modules.items() for one in module.references if not exists(one, module)
    }
    assert sorted(lost) == []
