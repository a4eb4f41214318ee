"""Where SAM's labels of the unlabelled cases are, whatever fold they were made for; without nnU-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nnunet_sfr.data.provenance import SAM
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import MANIFEST, SFRPaths


def sam_labels_folder(paths: SFRPaths) -> Path:
    """The store of round 0 that ``sfr_crosscheck`` estimates the Dice of, which does not depend on a fold itself.

    Returns:
        The store of fold ``all``, or else of the lowest fold, that SAM has filled; that of fold ``all`` where none is.

    Raises:
        UserError: the manifest of a store is damaged.
    """
    of_all = paths.pseudo_labels("all")
    return next(filter(_is_of_sam, [of_all, *_of_numbered_folds(paths)]), of_all)


def _of_numbered_folds(paths: SFRPaths) -> Iterator[Path]:
    numbers = (folder.name.removeprefix("fold_") for folder in paths.pseudo_labels_of_folds.glob("fold_*"))
    for fold in sorted(int(number) for number in numbers if number.isdecimal()):
        yield paths.pseudo_labels(fold)


def _is_of_sam(folder: Path) -> bool:
    file = folder / MANIFEST
    if not file.is_file():
        return False
    made_by = read_json(file, "delete the store").get("made_by")
    return isinstance(made_by, dict) and made_by.get("source") == SAM
