"""Keeping back what libraries print beside their work."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def without_printing(*, errors: bool = False) -> Iterator[None]:
    """Keep back what nnU-Net and readers of images print.

    Args:
        errors: whether what they print to stderr is kept back too.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if errors:
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
