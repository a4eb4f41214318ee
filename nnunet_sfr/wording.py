"""Numbers, shapes, lists of names and the errors of others as messages word them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GIB = 2**30

_MOST_OF_A_REASON = 200
"""Characters."""


def first_names(names: Sequence[str], most: int = 10, remark: str = "") -> str:
    """The first names of a list, and how many more there are.

    Args:
        names: in the order in which they are shown.
        most: shown at most.
        remark: what follows where some are left out.
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more{remark}" if rest > 0 else "")


def gib(size: float) -> str:
    """A number of bytes."""
    return f"{size / GIB:.1f} GiB" if size >= 10 * GIB else f"{size / GIB:.2f} GiB"


def times(lengths: Iterable[float | str]) -> str:
    """A shape or a spacing: numbers with six digits at most, text as it is."""
    return " x ".join(length if isinstance(length, str) else f"{length:g}" for length in lengths)


def reason(error: Exception) -> str:
    """What an exception of others says, on one line and cut to 200 characters; its type where it says nothing.

    Args:
        error: whatever was raised.
    """
    return " ".join(str(error).split())[:_MOST_OF_A_REASON] or type(error).__name__


def aligned(rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """The lines of a table, its columns of one width each.

    Args:
        rows: of cells, all of the same number.
        left: so many columns are aligned to the left, and the others to the right; None for all to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if left is None or index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def last_line(error: BaseException) -> str:
    """The last line of an error's message: SimpleITK's have one for each layer, and the last names the cause.

    Args:
        error: without a message, the name of its type stands for it.
    """
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def shortest(value: float) -> str:
    """A number with six digits, or with all that it takes to tell it from another one.

    Args:
        value: Python's or numpy's.
    """
    short = f"{value:g}"
    return short if float(short) == value else str(value)
