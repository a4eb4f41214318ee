"""The raw data of corrected cases: labels and images in their new places, and their entries in dataset.json."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.json_files import read_json
from nnunet_sfr.label_journal import Journal
from nnunet_sfr.nnunet_json import WRITE_DATASET_JSON
from nnunet_sfr.paths import LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES


def move_raw_files(journal: Journal) -> None:
    """Put labels and images among those of the labelled cases, as far as they are not there yet."""
    raw = journal.raw
    for case in journal.cases:
        # the label map last: what belongs to it is found by its name
        for name in reversed(journal.label_names(case)):
            _move(journal.copy(name), raw / LABELS / name)
        for name in reversed(journal.image_names(case)):
            _move(raw / UNLABELLED_IMAGES / name, raw / LABELLED_IMAGES / name)


def update_dataset_json(file: Path, journal: Journal) -> None:
    """Let a dataset.json, the raw one or its copy, tell of the labelled cases that there are now.

    Args:
        file: replaced if it changes.
        journal: of the labels that are added.
    """
    content = read_json(file, WRITE_DATASET_JSON)
    updated = with_labelled(content, journal.images, journal.file_ending, journal.num_training)
    if updated != content:
        write_json(updated, file)


def with_labelled(
    dataset_json: dict[str, Any], images: dict[str, Any] | Any, ending: str, num_training: int
) -> dict[str, Any]:
    """The content of dataset.json with more labelled cases.

    Args:
        dataset_json: without them, or with them.
        images: file names of their channels, by identifier.
        ending: of files.
        num_training: how many labelled cases there are with them.
    """
    content = {**dataset_json, "numTraining": num_training}
    if "dataset" in dataset_json:
        entries = {
            case: {
                "images": [f"{LABELLED_IMAGES}/{name}" for name in images[case]],
                "label": f"{LABELS}/{case}{ending}",
            }
            for case in sorted(images)
        }
        content["dataset"] = {**dataset_json["dataset"], **entries}
    return content


def unwritable(folders: Iterable[Path]) -> list[Path]:
    """The folders, of those that are there, in which this user cannot move files."""
    return [folder for folder in folders if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)]


def _move(source: Path, target: Path) -> None:
    """Move a file that may have been moved by an earlier call."""
    if not source.exists():
        return
    target.parent.mkdir(exist_ok=True)
    if source.is_symlink() and os.path.realpath(target.parent / os.readlink(source)) != os.path.realpath(source):
        # a relative link, in an imagesUl that is a link to a folder elsewhere
        with replacing(target) as temporary:
            temporary.symlink_to(source.resolve())
        source.unlink()
        return
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # imagesUl can be a link to another disk
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)
        source.unlink()
