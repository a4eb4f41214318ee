"""Numbers and lists as the report words them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GIB = 2**30


def first_names(names: Sequence[str], most: int = 2) -> str:
    """The first names of a list, and how many more there are.

    Args:
        names: in the order in which they are shown.
        most: shown at most.
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more (all in --json)" if rest > 0 else "")


def gib(size: float) -> str:
    """A number of bytes."""
    return f"{size / GIB:.1f} GiB" if size >= 10 * GIB else f"{size / GIB:.2f} GiB"


def times(lengths: Iterable[object]) -> str:
    """A shape."""
    return " x ".join(map(str, lengths))
