"""Results that were asked for lately, each computed once, also if it is asked for while it is being computed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """A cache of the last few results.

    Args:
        kept: how many.
        executor: computes them.
    """

    def __init__(self, kept: int, executor: Executor) -> None:
        self._kept = kept
        self._executor = executor
        self._lock = threading.Lock()
        self._results: OrderedDict[Hashable, Future[Result]] = OrderedDict()

    def prepare(self, key: Hashable, compute: Callable[[], Result]) -> Future[Result]:
        """Start to compute a result, unless it is there; failures are not kept.

        Args:
            key: of the result.
            compute: makes it.
        """
        with self._lock:
            future = self._results.get(key)
            if future is None or (future.done() and future.exception() is not None):
                future = self._results[key] = self._executor.submit(compute)
            self._results.move_to_end(key)
            while len(self._results) > self._kept:
                self._results.popitem(last=False)
        return future

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """A result, for which this call waits.

        Args:
            key: of the result.
            compute: makes it, unless it is there.
        """
        return self.prepare(key, compute).result()
