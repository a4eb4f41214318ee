"""``sfr_report``: everything gathered, and the page written when all of it is there."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold
from nnunet_sfr.report.annotation import ANNOTATE_NEXT, RankedCase, write_list
from nnunet_sfr.report.contents import Contents
from nnunet_sfr.report.gathering import ReportOptions, gather
from nnunet_sfr.report.page import pictures_of, write_page
from nnunet_sfr.report.picture_cache import MEASURED, PICTURES


def make_report(
    dataset: SFRDataset, fold: Fold, folder: Path, options: ReportOptions, *, single_file: bool = False
) -> tuple[Path, Contents]:
    """Write the page, the list of cases to annotate next, and the pictures.

    New pictures have names of their own, and those of an earlier page are removed after it was replaced: whenever this
    stops, there is a whole page, and the next call continues.

    Args:
        dataset: planned, preprocessed, and with pseudo-labels.
        fold: whose labels and models.
        folder: of the page.
        options: of the user.
        single_file: whether the pictures go into the page, too.

    Returns:
        the page, and what it shows.

    Raises:
        UserError: nothing to report on, or ``folder`` holds other files.
    """
    _check_folder(folder)
    gathered = gather(dataset, fold, folder, options)
    write_list(gathered.choices, _raw_images(dataset, gathered.choices), folder / ANNOTATE_NEXT)
    page = write_page(gathered.contents, folder, single_file=single_file)
    gathered.cache.remove_others(pictures_of(gathered.contents))
    return page, gathered.contents


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose a folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PICTURES / MEASURED).is_file():
        raise UserError(f"{folder}: is neither empty nor a report; choose another folder with -o")


def _raw_images(dataset: SFRDataset, choices: Sequence[RankedCase]) -> dict[str, list[str]]:
    """The raw files of every case on the list that are on this machine, in the order of the channels."""
    if not dataset.paths.raw_is_here():
        return {choice.case: [] for choice in choices}
    ending = dataset.dataset_json["file_ending"]
    folder = dataset.paths.raw_unlabelled
    found = {}
    for choice in choices:
        pattern = f"{glob.escape(choice.case)}_[0-9][0-9][0-9][0-9]{glob.escape(ending)}"
        found[choice.case] = [str(file) for file in sorted(folder.glob(pattern))]
    return found
