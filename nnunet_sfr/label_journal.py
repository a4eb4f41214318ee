"""What sfr_add_labels has decided to do: on disk before the first file changes, so that any later call can complete it.

``nnUNet_raw/<data set>/.sfr_add_labels/`` holds ``.journal.json`` and copies of the label maps. It appears with one
rename, when everything has been checked, and goes when everything is done. Nothing here imports nnU-Net, since
``sfr_run`` asks too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.errors import UserError, file_errors_explained
from nnunet_sfr.json_files import Shape, read_json

FOLDER, PARTIAL = ".sfr_add_labels", ".sfr_add_labels.partial"
_FILE, _EARLIER_FILE = ".journal.json", "journal.json"
"""The copies lie beside it, and no case has a name that begins with a dot; of a case ``journal``, the spacing file of a
TIFF label map is called as earlier versions called the journal."""


@dataclass(frozen=True)
class Journal:
    """Cases that are becoming labelled.

    Args:
        raw: ``nnUNet_raw/<name>``.
        images: file names of the channels, in their order, by identifier.
        file_ending: of the data set.
        num_training: number of labelled cases when it is done.
        stamp: :meth:`nnunet_sfr.data.raw_cases.RawDataset.stamp` of the raw data when it is done.
        image_sidecars: names of the files that belong to the images, by identifier.
        label_sidecars: the same of the label maps.
    """

    raw: Path
    images: Mapping[str, Sequence[str]]
    file_ending: str
    num_training: int
    stamp: str
    image_sidecars: Mapping[str, Sequence[str]] = field(default_factory=dict)
    label_sidecars: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Identifiers, sorted."""
        return sorted(self.images)

    def image_names(self, case: str) -> list[str]:
        """The image's files, and those that belong to it."""
        return [*self.images[case], *self.image_sidecars.get(case, ())]

    def label_names(self, case: str) -> list[str]:
        """The label map's file, and those that belong to it."""
        return [f"{case}{self.file_ending}", *self.label_sidecars.get(case, ())]

    def copy(self, name: str) -> Path:
        """The copy of a label map's file, until it is in its place."""
        return self.raw / FOLDER / name

    def commit(self) -> None:
        """Let what :func:`stage` has copied be done: from here on it will be."""
        partial = self.raw / PARTIAL
        content = {
            "images": {case: list(names) for case, names in self.images.items()},
            "file_ending": self.file_ending,
            "num_training": self.num_training,
            "stamp": self.stamp,
            "image_sidecars": {case: list(names) for case, names in self.image_sidecars.items()},
            "label_sidecars": {case: list(names) for case, names in self.label_sidecars.items()},
        }
        write_json(content, partial / _FILE)
        os.rename(partial, self.raw / FOLDER)

    def end(self) -> None:
        """Everything is done."""
        _file(self.raw).unlink(missing_ok=True)
        shutil.rmtree(self.raw / FOLDER)


def read_journal(raw: Path) -> Journal | None:
    """What an earlier call has decided and not completed.

    Args:
        raw: ``nnUNet_raw/<name>``.

    Raises:
        UserError: the journal is damaged.
    """
    if not is_under_way(raw):
        return None
    file = _file(raw)
    remedy = (
        "look into the folder for the label maps, put them and their images in place by hand, delete it and run "
        "sfr_plan_and_preprocess"
    )
    shape: Shape = {"images": {...: [str]}, "file_ending": str, "num_training": int, "stamp": str}
    content = read_json(file, remedy, shape)
    return Journal(raw=raw, **{field.name: content[field.name] for field in fields(Journal) if field.name in content})


def is_under_way(raw: Path) -> bool:
    """Whether files have been moved, or may have been, and the rest is still to be done.

    Args:
        raw: ``nnUNet_raw/<name>``.
    """
    return _file(raw).is_file()


def _file(raw: Path) -> Path:
    """The journal, or where it would be."""
    earlier, file = raw / FOLDER / _EARLIER_FILE, raw / FOLDER / _FILE
    return earlier if earlier.is_file() and not file.is_file() else file


def require_completed(raw: Path) -> None:
    """Refuse to work with a data set that is half changed.

    Raises:
        UserError: an sfr_add_labels was stopped before its end.
    """
    if read_journal(raw) is not None:
        raise UserError(f"{raw / FOLDER}: sfr_add_labels was stopped before its end; run it again to complete it")


def stage(raw: Path, files: Iterable[Path]) -> Path:
    """Copy files to where :meth:`Journal.commit` takes them, times of change too.

    Args:
        raw: ``nnUNet_raw/<name>``, without a journal.
        files: label maps, and what belongs to them.

    Returns:
        The folder of the copies.

    Raises:
        UserError: the disk is full, the folder cannot be written to, or a file cannot be read.
    """
    remove_remains(raw)
    for file in files:
        with file_errors_explained(), replacing(raw / PARTIAL / file.name) as temporary:
            shutil.copy2(file, temporary)
    return raw / PARTIAL


def remove_remains(raw: Path) -> None:
    """Remove what calls have left that were killed before they had decided, or after everything was done."""
    for name in (PARTIAL, FOLDER):
        if not is_under_way(raw) or name == PARTIAL:
            shutil.rmtree(raw / name, ignore_errors=True)
