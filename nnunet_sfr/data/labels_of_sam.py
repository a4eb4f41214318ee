"""Where SAM's labels of the unlabelled cases are, whatever fold they were made for; without nnU-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.data.store_manifest import maker_in, read_manifest
from nnunet_sfr.json_files import first_difference
from nnunet_sfr.paths import FOLDS_PATTERN, SFRPaths, fold_of


def sam_labels_folder(paths: SFRPaths, grid: Mapping[str, Any]) -> Path | None:
    """The store of round 0 that ``sfr_crosscheck`` estimates the Dice of, which does not depend on a fold itself.

    Args:
        paths: of the configuration.
        grid: :func:`nnunet_sfr.data.label_grid.label_grid` of today; stores of another one are passed over.

    Returns:
        The store of fold ``all``, or else of the lowest fold, that SAM has filled; None where none is.

    Raises:
        UserError: the manifest of a store is damaged.
    """
    folders = [paths.pseudo_labels("all"), *_of_numbered_folds(paths)]
    return next((folder for folder in folders if _is_of_sam(folder, grid)), None)


def _of_numbered_folds(paths: SFRPaths) -> Iterator[Path]:
    numbers = map(fold_of, paths.pseudo_labels_of_folds.glob(FOLDS_PATTERN))
    for fold in sorted(int(number) for number in numbers if number.isdecimal()):
        yield paths.pseudo_labels(fold)


def _is_of_sam(folder: Path, grid: Mapping[str, Any]) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and maker_in(manifest).is_sam and first_difference(manifest["grid"], grid) is None
