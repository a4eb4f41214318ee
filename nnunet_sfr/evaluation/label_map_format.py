"""Where labels, file ending and reader come from: files that are named, a data set, or the prediction folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.classes import file_ending, read_classes
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import DATASET_JSON, PLANS_JSON, DatasetPaths, resolve_dataset_name
from nnunet_sfr.plans import choose_plans


@dataclass(frozen=True)
class LabelMapFormat:
    """What a folder of label maps is read with.

    Args:
        dataset_json: content, checked.
        reader: of the plans; None where there are none, and nnU-Net will choose one by the files.
    """

    dataset_json: dict[str, Any]
    reader: type[BaseReaderWriter] | None


def find_format(
    prediction: Path,
    *,
    dataset: str | None = None,
    plans_name: str | None = None,
    dataset_json_file: Path | None = None,
    plans_file: Path | None = None,
) -> LabelMapFormat:
    """Find ``dataset.json`` and plans: files that are named, else those of a data set, else of the prediction folder.

    Plans tell the reader, and need not exist unless they are named.

    Args:
        prediction: folder with predictions.
        dataset: number or name.
        plans_name: of the data set; None for nnU-Net's default, or the only one with an SFR plan.
        dataset_json_file: named by the user.
        plans_file: named by the user.

    Raises:
        UserError: no such folder, no ``dataset.json``, no plans of this name in the data set, or a file that is not
            what nnU-Net writes.
    """
    if not prediction.is_dir():
        raise UserError(f"{prediction}: not found; name the folder with the predictions")
    if dataset is not None:
        found_json, found_plans = _of_dataset(dataset, plans_name)
    else:
        found_json, found_plans = prediction / DATASET_JSON, prediction / PLANS_JSON
    json_file = dataset_json_file or found_json
    content = read_json(json_file, "name the data set with -d, or its dataset.json with -djfile")
    read_classes(content, str(json_file))
    file_ending(content, str(json_file))
    if plans_file is None and not found_plans.is_file():
        return LabelMapFormat(content, None)
    return LabelMapFormat(content, _reader(plans_file or found_plans))


def _of_dataset(dataset: str, plans_name: str | None) -> tuple[Path, Path]:
    """The files of a data set, of which the raw one may be on another machine."""
    paths = DatasetPaths(resolve_dataset_name(dataset))
    plans = paths.preprocessed / f"{choose_plans(paths, plans_name)}.json"
    if plans_name is not None and not plans.is_file():
        known = ", ".join(paths.sfr_plans_names())
        remedy = f"choose -p from {known}, or leave it out" if known else "leave -p out"
        raise UserError(f"{plans}: not found; {remedy}")
    has_raw = paths.raw_is_here() and paths.raw_dataset_json.is_file()
    return paths.raw_dataset_json if has_raw else paths.dataset_json, plans


def _reader(plans_file: Path) -> type[BaseReaderWriter]:
    remedy = "name nnU-Net's plans with -pfile"
    name = read_json(plans_file, remedy).get("image_reader_writer")
    try:
        reader: type[BaseReaderWriter] = recursive_find_reader_writer_by_name(name)
    except (RuntimeError, TypeError):
        raise UserError(f"{plans_file}: image_reader_writer is {name!r}, no reader of nnU-Net; {remedy}") from None
    return reader
