"""Every case is read and checked before anything is written; a later call does not read again what has passed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.conversion.source_dataset import CaseCheck
from nnunet_sfr.data.file_identity import file_stamps
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.raw_cases import raise_first
from nnunet_sfr.hashing import json_hash
from nnunet_sfr.paths import CACHE_VARIABLE


def check_all(checks: Sequence[CaseCheck], progress: Path, *, processes: int) -> None:
    """Read and check all cases.

    Args:
        checks: of the cases.
        progress: file that notes what has passed, a line each; a later call skips those whose files and expectations
            are the same.
        processes: cases to read at a time; 1 starts no process.

    Raises:
        UserError: the first problem, and how many cases have more.
    """
    passed = set(progress.read_text(encoding="utf-8").splitlines()) if progress.is_file() else set()
    waiting = [check for check in checks if _stamp(check) not in passed]
    progress.parent.mkdir(parents=True, exist_ok=True)
    with progress.open("a") as stream:

        def note(check: CaseCheck, problem: str | None) -> None:
            if problem is None:
                stream.write(f"{_stamp(check)}\n")
                stream.flush()

        problems = run_parallel(
            _problem, waiting, processes=processes, description="Checking all files", on_result=note
        )
    raise_first([problem for problem in problems if problem is not None])


def progress_file(dataset: Path) -> Path:
    """Where the progress for a data set to make is kept: in the user's cache, so that nothing lies beside the data."""
    cache = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "nnunet_sfr")
    name = hashlib.sha256(str(dataset.resolve()).encode()).hexdigest()[:16]
    return Path(cache).expanduser() / f"checked_{name}.txt"


def _problem(check: CaseCheck) -> str | None:
    return check.problem()


def _stamp(check: CaseCheck) -> str:
    """Changes with any file of the case (name, size, time of change) and with what is expected of them."""
    return json_hash([repr(check), file_stamps(check.files)])
