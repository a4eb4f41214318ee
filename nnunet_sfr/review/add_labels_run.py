"""``sfr_add_labels`` for the label maps of a review: the command to type, or run from the page."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_sfr.label_journal import is_under_way
from nnunet_sfr.paths import DatasetPaths

if TYPE_CHECKING:
    from nnunet_sfr.review.session import Session

_MODULE = "nnunet_sfr.entry_points.add_labels"
_MOST_OUTPUT = 20_000
"""Letters of the output that the page shows, the last ones."""


class AddLabelsRun:
    """One call of the command.

    Args:
        arguments: of ``sfr_add_labels``.
        log: file for what it prints.
        raw: ``nnUNet_raw/<data set>``, which it changes.
    """

    def __init__(self, arguments: list[str], log: Path, raw: Path) -> None:
        self._arguments = arguments
        self._log = log
        self._raw = raw
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, session: Session) -> AddLabelsRun:
        corrected = session.progress.corrected
        arguments = ["-d", session.dataset_name, "-i", str(corrected)]
        return cls(arguments, corrected.with_name("add_labels.log"), DatasetPaths(session.dataset_name).raw)

    @property
    def command(self) -> str:
        return shlex.join(["sfr_add_labels", *self._arguments])

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def has_ended_well(self) -> bool:
        return self._process is not None and self._process.poll() == 0

    def start(self) -> None:
        """Run it in a session of its own: Ctrl-C ends sfr_review, and not what was asked for."""
        code = f"import sys; from {_MODULE} import main; sys.exit(main())"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        code = None if self._process is None else self._process.poll()
        running = self._process is not None and code is None
        return {
            "command": self.command,
            "running": running,
            "code": code,
            "half_done": not running and is_under_way(self._raw),
            "output": self._read_log(),
        }

    def _read_log(self) -> str:
        if self._process is None:
            return ""
        text = self._log.read_bytes().decode(errors="replace")[-_MOST_OUTPUT:]
        # a progress bar writes over its line again and again
        return "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))
