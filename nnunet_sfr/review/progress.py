"""What was decided of every case, on disk at once.

::

    nnUNet_results/Dataset042_Name/SFR_review/
        corrected/<case>.nii.gz    label maps of corrected and accepted cases, as sfr_add_labels takes them
        drafts/<case>.npz          what was drawn and not saved yet
        progress.json              the decisions

The label maps are what counts: a case with one is decided, a case whose label map was deleted is open again.
"""

from __future__ import annotations

import json
import threading
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json

CORRECTED, ACCEPTED, SKIPPED, OPEN = "corrected", "accepted", "skipped", "open"
_SAVED = (CORRECTED, ACCEPTED)


@dataclass(frozen=True)
class Decision:
    """What was decided of a case.

    Args:
        state: ``corrected``, ``accepted`` or ``skipped``.
        source: key of the label maps that it was started from.
        changed_voxels: how many differ from these.
        time: of the decision, ISO 8601.
    """

    state: str
    source: str = ""
    changed_voxels: int = 0
    time: str = ""


@dataclass(frozen=True)
class CaseState:
    """How a case stands.

    Args:
        state: of the decision, or ``open``.
        changed_voxels: of a corrected case.
        has_draft: whether something was drawn and not saved.
        is_deleted: whether it was decided, and its label map has been deleted since.
    """

    state: str
    changed_voxels: int = 0
    has_draft: bool = False
    is_deleted: bool = False


class Progress:
    """The folder of a review.

    Args:
        folder: of the review.
        ending: of the data set's files.

    Raises:
        UserError: the file of an earlier review is damaged.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.corrected = folder / "corrected"
        self._drafts = folder / "drafts"
        self._file = folder / "progress.json"
        self._ending = ending
        self._lock = threading.Lock()
        self._decisions = _read(self._file)

    def label_file(self, case: str) -> Path:
        """Where the label map of a case goes."""
        return self.corrected / f"{case}{self._ending}"

    def case_state(self, case: str) -> CaseState:
        decision = self._decisions.get(case)
        is_there = self.label_file(case).is_file()
        has_draft = self._draft(case).is_file()
        if decision is None or (decision.state == SKIPPED and is_there):
            # with a label map: the process was killed between its renaming and the note
            return CaseState(CORRECTED if is_there else OPEN, has_draft=has_draft)
        if decision.state in _SAVED and not is_there:
            return CaseState(OPEN, has_draft=has_draft, is_deleted=True)
        return CaseState(decision.state, decision.changed_voxels, has_draft)

    def decide(self, case: str, state: str, source: str = "", changed_voxels: int = 0) -> None:
        """Note a decision; the label map of a saved case is there already.

        Args:
            case: identifier.
            state: ``corrected``, ``accepted`` or ``skipped``.
            source: key of the label maps that it was started from.
            changed_voxels: how many differ from these.
        """
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._lock:
            decisions = {**self._decisions, case: Decision(state, source, changed_voxels, now)}
            write_json({"cases": {name: asdict(one) for name, one in sorted(decisions.items())}}, self._file)
            self._decisions = decisions

    def read_draft(self, case: str) -> np.ndarray | None:
        """What was drawn and not saved, (slices, height, width) on the raw grid; None if there is nothing.

        Raises:
            UserError: the file is damaged.
        """
        file = self._draft(case)
        try:
            with np.load(file, allow_pickle=False) as content:
                labels: np.ndarray = content["labels"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{file}: the draft of case {case} is damaged ({error}); delete it") from None
        return labels

    def write_draft(self, case: str, labels: np.ndarray) -> None:
        """Keep what was drawn and not saved.

        Args:
            case: identifier.
            labels: (slices, height, width) on the raw grid.
        """
        with replacing(self._draft(case)) as temporary:
            np.savez_compressed(temporary, labels=labels)

    def remove_draft(self, case: str) -> None:
        self._draft(case).unlink(missing_ok=True)

    def remove_label(self, case: str) -> None:
        """Remove a label map and what belongs to it: sfr_add_labels refuses a folder with files of no label map."""
        file = self.label_file(case)
        for one in (*sidecars([file], self._ending, is_label=True), file):
            one.unlink(missing_ok=True)

    def _draft(self, case: str) -> Path:
        return self._drafts / f"{case}.npz"


def _read(file: Path) -> Mapping[str, Decision]:
    if not file.exists():
        return {}
    remedy = "move it away to start the list of decisions again; saved label maps stay"
    content: dict[str, Any] = read_json(file, remedy)
    try:
        return {case: Decision(**decision) for case, decision in content["cases"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is not what sfr_review writes ({json.dumps(str(error))}); {remedy}") from None
