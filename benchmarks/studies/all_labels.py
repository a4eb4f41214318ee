"""A data set in which every case to train on is labelled: what few labels are measured against."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.conversion.raw_dataset import UNLABELLED_TRUTH
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import DATASET_JSON, LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES


def link_all_labels(dataset: Path, full: Path) -> None:
    """Make ``full`` from a converted data set by hard links, unless it is there: no voxel is written.

    Args:
        dataset: raw data set, of which the truth of the unlabelled cases lies in ``labelsUl_truth``.
        full: raw data set to make; unlabelled cases without a truth are left out.

    Raises:
        UserError: no unlabelled case has a truth.
    """
    if full.is_dir():
        return
    content = read_json(dataset / DATASET_JSON, "build the data set again")
    ending = content["file_ending"]
    truths = {file.name.removesuffix(ending): file for file in (dataset / UNLABELLED_TRUTH).glob(f"*{ending}")}
    if not truths:
        raise UserError(f"{dataset / UNLABELLED_TRUTH}: has no truth of unlabelled cases, so not all can be labelled")
    with replacing(full) as temporary:
        for folder in (LABELLED_IMAGES, LABELS):
            (temporary / folder).mkdir(parents=True)
        labels = [
            *(dataset / LABELS).iterdir(),
            *truths.values(),
            *sidecars(truths.values(), ending, is_label=True),
        ]
        images = [*(dataset / LABELLED_IMAGES).iterdir(), *(dataset / UNLABELLED_IMAGES).iterdir()]
        for file in images:
            case = file.name.removesuffix(ending).rpartition("_")[0] if file.name.endswith(ending) else file.stem
            if file.parent.name == LABELLED_IMAGES or case in truths:
                os.link(file, temporary / LABELLED_IMAGES / file.name)
        for file in labels:
            os.link(file, temporary / LABELS / file.name)
        cases = sum(file.name.endswith(ending) for file in labels)
        write_json({**content, "numTraining": cases}, temporary / DATASET_JSON)
