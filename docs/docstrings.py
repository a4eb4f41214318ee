"""Counts which public functions say what their arguments are: ``python docs/docstrings.py``.

Counted are functions of the package, and methods of its classes, whose names have no leading underscore and that take
two arguments or more: a single one is mostly explained by the sentence that says what the function does. An ``Args``
section explains them.
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


def public_functions(file: Path) -> Iterator[Documented]:
    """Every public function and method of a module that takes several arguments."""
    tree = ast.parse(file.read_text())
    name = file.relative_to(PACKAGE.parent).as_posix()
    for node in tree.body:
        if isinstance(node, Function) and is_public(node) and len(arguments(node)) >= SEVERAL:
            yield Documented(f"{name}:{node.lineno} {node.name}", has_arguments_section(node))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and is_public(method) and len(arguments(method)) >= SEVERAL:
                    yield Documented(f"{name}:{method.lineno} {node.name}.{method.name}", has_arguments_section(method))


def is_public(function: Function) -> bool:
    return not function.name.startswith("_") and not any(
        isinstance(decorator, ast.Name) and decorator.id in ("overload", "override")
        for decorator in function.decorator_list
    )


def arguments(function: Function) -> list[str]:
    """Names of the arguments, without ``self`` and ``cls``."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def has_arguments_section(function: Function) -> bool:
    return "Args:" in (ast.get_docstring(function) or "")


def main() -> int:
    found = [function for file in sorted(PACKAGE.rglob("*.py")) for function in public_functions(file)]
    missing = [function.where for function in found if not function.explained]
    print("\n".join(missing))
    print(f"{len(found) - len(missing)} of {len(found)} ({100 * (1 - len(missing) / len(found)):.0f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
