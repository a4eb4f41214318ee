"""The same function over many cases, in several processes, with a progress bar and without ever hanging."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from nnunet_sfr.errors import UserError, file_errors_explained

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    processes: int,
    description: str,
    on_result: Callable[[Task, Result], None] | None = None,
) -> list[Result]:
    """Call ``function`` on every task; the results come in the order of the tasks.

    One process means this one: a new one would spend several seconds on imports alone.

    Args:
        function: a module-level function (it is pickled).
        tasks: picklable arguments.
        processes: most processes to start.
        description: what the progress bar says.
        on_result: called in this process with every task and its result, as soon as it is there.

    Raises:
        UserError: a worker process died, or ``function`` raised a UserError.
        RuntimeError: ``function`` raised anything else; the message is the worker's traceback.
    """
    if not tasks:
        return []
    processes = min(processes, len(tasks))
    if processes <= 1:
        # with: an error closes the bar, so that its message starts on a line of its own
        with tqdm(tasks, desc=description) as bar:
            return [_noted(task, function(task), on_result) for task in bar]
    # spawn: a fork of a process in which torch or SimpleITK runs threads can deadlock
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        futures = {executor.submit(_guarded, function, task): task for task in tasks}
        with tqdm(as_completed(futures), total=len(futures), desc=description) as bar:
            for future in bar:
                _noted(futures[future], future.result(), on_result)
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise UserError(
            f"{description}: a worker process was killed, most likely because memory ran out; "
            f"run the same command with fewer processes than {processes}"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _noted(task: Task, result: Result, on_result: Callable[[Task, Result], None] | None) -> Result:
    if on_result is not None:
        on_result(task, result)
    return result


def _guarded(function: Callable[[Task], Result], task: Task) -> Result:
    """Let only errors out that survive pickling and that the caller knows (never SystemExit)."""
    try:
        with file_errors_explained():
            return function(task)
    except UserError:
        raise
    except MemoryError:
        raise UserError("memory ran out in a worker process; use fewer processes (-np)") from None
    except BaseException:
        raise RuntimeError(f"in a worker process:\n{traceback.format_exc()}") from None


def _start_worker() -> None:
    """On Ctrl-C a worker finishes its case; when the parent is gone for good, it goes too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
