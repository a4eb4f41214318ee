"""Counts which public functions say what their arguments are: ``python docs/docstrings.py``.

Counted are functions of the package, and methods of its classes, whose names have no leading underscore and that take
two arguments or more: a single one is mostly explained by the sentence that says what the function does. An ``Args``
section explains them. A method without a docstring is not counted if another class documents one of its name: it
overrides that one, or does what a protocol asks for.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEVERAL = 2
PACKAGE = Path(__file__).resolve().parent.parent / "nnunet_sfr"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function, and whether it has an ``Args`` section."""

    where: str
    explained: bool


def public_functions(package: Path = PACKAGE) -> list[Documented]:
    """Every public function and method that takes several arguments, by file and line.

    Args:
        package: folder of the package.
    """
    found = [named for file in sorted(package.rglob("*.py")) for named in _in_module(file, package)]
    documented = {name.rpartition(".")[2] for name, function in found if ast.get_docstring(function)}
    return [
        Documented(name, has_arguments_section(function))
        for name, function in found
        if ast.get_docstring(function) or name.rpartition(".")[2] not in documented
    ]


def _in_module(file: Path, package: Path) -> Iterator[tuple[str, Function]]:
    """(where and name, function)."""
    place = file.relative_to(package.parent).as_posix()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, Function) and is_counted(node):
            yield f"{place}:{node.lineno} {node.name}", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and is_counted(method):
                    yield f"{place}:{method.lineno} {node.name}.{method.name}", method


def is_counted(function: Function) -> bool:
    return not function.name.startswith("_") and len(arguments(function)) >= SEVERAL


def arguments(function: Function) -> list[str]:
    """Names of the arguments, without ``self`` and ``cls``."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def has_arguments_section(function: Function) -> bool:
    return "Args:" in (ast.get_docstring(function) or "")


def main() -> int:
    found = public_functions()
    missing = [function.where for function in found if not function.explained]
    print("\n".join(missing))
    print(f"{len(found) - len(missing)} of {len(found)} ({100 * (1 - len(missing) / len(found)):.0f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
