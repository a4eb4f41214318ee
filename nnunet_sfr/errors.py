"""The one exception for mistakes that a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something in the data, the settings or the call is wrong, and the user can put it right.

    The message is a single line that names the file or the case, what is wrong with it and what to do.
    Commands print it and exit with code 1; a traceback is kept for our own mistakes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with the one line of a :class:`UserError`, where nnU-Net's own commands call our code."""
    try:
        yield
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
