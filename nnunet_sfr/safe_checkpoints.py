"""Checkpoints of unknown origin, read without running code that they hold.

A pickle can call any function. torch's ``weights_only`` unpickler calls those that it knows alone; what nnU-Net's
checkpoints hold besides (numbers and arrays of numpy, in its log) is allowed here by name.
"""

from __future__ import annotations

import codecs
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch


class NeedsCodeError(Exception):
    """A checkpoint cannot be read without importing what it names; the message is that name."""


def load_checkpoint(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read a checkpoint onto the CPU.

    Args:
        file: written by ``torch.save``.
        allowed: types and functions that it may hold besides torch's own.

    Raises:
        NeedsCodeError: it names something else.
        ValueError: it is truncated, or no checkpoint.
    """
    try:
        with warnings.catch_warnings(), _allowing(allowed):
            warnings.simplefilter("ignore")
            # Memory mapping reads only what is used, but torch's format from before 1.6 does not allow it.
            return torch.load(str(file), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        # Whatever a file holds that is not a checkpoint, the unpickler fails on it in its own way.
        name = re.search(r"\bGLOBAL (\S+)", str(error))
        if name:
            raise NeedsCodeError(name[1]) from None
        raise ValueError(type(error).__name__) from None


def nnunet_types() -> list[Any]:
    """What nnU-Net's trainer writes besides tensors and Python's own types: values and arrays of numpy."""
    # those that rebuild a scalar and an array; numpy 1 and 2 have them in different modules
    functions: list[Any] = [np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]]
    named = [_under(function, module) for function in functions for module in ("numpy.core", "numpy._core")]
    dtypes = {type(np.dtype(code)) for code in (*np.typecodes["AllInteger"], *np.typecodes["Float"], "?")}
    # a scalar's bytes, which the format of old pickles holds as encoded text; torch allows it by itself from 2.5 on
    return [*named, codecs.encode, np.dtype, np.ndarray, *dtypes]


def _under(function: Callable[..., Any], package: str) -> Callable[..., Any]:
    """A function that pickles find as ``<package>.multiarray.<its name>``."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.__module__, call.__name__, call.__qualname__ = f"{package}.multiarray", function.__name__, function.__name__
    return call


@contextmanager
def _allowing(allowed: Sequence[Any]) -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(list(allowed))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
