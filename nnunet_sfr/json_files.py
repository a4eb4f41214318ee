"""JSON files of nnU-Net and of ours: read, and held to the shape that the reader needs; torch is not needed for it.

A shape is declared with the values themselves::

    read_json(file, "plan again", {"configurations": {...: {"spacing": [float]}}, "plans_name?": str})

asks for an object with ``configurations``, an object whose every entry is an object with ``spacing``, a list of finite
numbers; ``plans_name`` may be missing, and is text where it is not. What a shape does not name may be anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError, file_errors_explained

Shape = Any
"""A type, a union of types, ``[shape]`` for a list, or a mapping from keys (``"name?"`` for one that may be missing,
``...`` for all that there are) to shapes."""

OBJECT: Shape = {}

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def read_json(file: Path, remedy: str, shape: Shape = OBJECT) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: in UTF-8, or another of JSON's encodings.
        remedy: what to do about a file that does not pass; ends the message.
        shape: of the object.

    Raises:
        UserError: the file is missing, cannot be read or is not JSON, or an entry is missing or of another shape.
    """
    content: dict[str, Any] = _read(file, remedy)
    require_shape(content, shape if isinstance(shape, Mapping) else OBJECT, f"{file}", remedy)
    return content


def read_json_list(file: Path, remedy: str, shape: Shape) -> list[Any]:
    """Read a JSON list; like :func:`read_json`.

    Args:
        file: in UTF-8, or another of JSON's encodings.
        remedy: what to do about a file that does not pass.
        shape: of every element.
    """
    content: list[Any] = _read(file, remedy)
    require_shape(content, [shape], f"{file}", remedy)
    return content


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object as it would be read back from a file: in JSON's own types, lists for tuples for example.

    Args:
        content: that JSON can have.
    """
    read: dict[str, Any] = json.loads(json.dumps(dict(content)))
    return read


def first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key of ``wanted`` that ``found`` lacks or has otherwise; None where there is none.

    Args:
        found: read from a file.
        wanted: the same of today, lists or tuples.
    """
    return next((key for key, value in as_json(wanted).items() if found.get(key) != value), None)


def require_shape(value: Any, shape: Shape, where: str, remedy: str) -> None:
    """Hold a value to a shape.

    Args:
        value: as JSON gives it.
        shape: see above.
        where: of the value, for the message.
        remedy: ends the message.

    Raises:
        UserError: naming the first entry that does not fit, as ``configurations.2d.spacing[1]``.
    """
    problem = _problem(value, shape, "")
    if problem:
        raise UserError(f"{where}: {problem}; {remedy}")


def _read(file: Path, remedy: str) -> Any:
    try:
        with file_errors_explained(file):
            # bytes, of which JSON's own rule finds the encoding; a text file would be read in that of the system
            content = file.read_bytes()
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UserError(f"{file}: not found; {remedy}") from None
        raise
    if not content.strip():
        raise UserError(f"{file}: is empty; {remedy}")
    try:
        return json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}); {remedy}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands there twice, of which Python takes the last, is an error."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} is there twice")
    return content


def _problem(value: Any, shape: Shape, path: str) -> str:
    """What is wrong with a value; nothing if it fits."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(value, "a list", path)
        return _first(_problem(item, shape[0], f"{path}[{index}]") for index, item in enumerate(value))
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return _wrong(value, "an object", path)
        return _first(_entry_problem(value, key, inner, path) for key, inner in shape.items())
    if _is(value, shape):
        return ""
    return _wrong(value, _named(shape), path)


def _entry_problem(value: dict[str, Any], key: Any, shape: Shape, path: str) -> str:
    if key is ...:
        return _first(_problem(item, shape, _joined(path, name)) for name, item in value.items())
    name = key.removesuffix("?")
    if name in value:
        return _problem(value[name], shape, _joined(path, name))
    return "" if key.endswith("?") else f"the key {_joined(path, name)} is missing"


def _is(value: Any, shape: Any) -> bool:
    if isinstance(value, bool):
        return any(kind is bool for kind in _kinds(shape))
    if isinstance(value, (int, float)) and float in _kinds(shape):
        return isinstance(value, int) or math.isfinite(value)
    return isinstance(value, shape)


def _kinds(shape: Any) -> tuple[Any, ...]:
    return getattr(shape, "__args__", (shape,))


def _named(shape: Any) -> str:
    return " or ".join(_NAMES.get(kind, str(kind)) for kind in _kinds(shape))


def _wrong(value: Any, wanted: str, path: str) -> str:
    where = f"{path}: " if path else ""
    found = _NAMES.get(type(value), type(value).__name__)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        found = repr(value) if len(repr(value)) < 40 else found
    return f"{where}expected {wanted}, got {found}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _first(problems: Any) -> str:
    return next((problem for problem in problems if problem), "")
