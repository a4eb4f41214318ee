"""Label the cases that a fold leaves out, and compare with their true labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_sfr.atomic import write_json
from nnunet_sfr.confidence import class_dices
from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.data.preprocessing import check_grid
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.json_files import OBJECT, read_json
from nnunet_sfr.labelling.case_labels import Labeller, LoadedCase, label_case
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.pseudo_labelling import adapter_files, sam_labeller

AGAIN = "delete it and run sfr_crosscheck again"


@dataclass(frozen=True)
class LeftOutCase:
    """A labelled case as a SAM labelled it that had not learned from it.

    Args:
        identifier: of the case.
        fold: which left it out.
        dice: by label value, as text; None where neither map has the class.
        record: confidence, as in a pseudo-label store.
    """

    identifier: str
    fold: int
    dice: Mapping[str, float | None]
    record: Mapping[str, Any]

    @property
    def mean_dice(self) -> float | None:
        """Over the classes that are in either map; None if there are none."""
        known = [value for value in self.dice.values() if value is not None]
        return float(np.mean(known)) if known else None


def label_left_out(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> list[LeftOutCase]:
    """Fine-tune SAM without the cases of a fold, as far as that is not done, and label them.

    Args:
        dataset: from :func:`nnunet_sfr.crosscheck.folds.with_crosscheck_folds`.
        fold: a number.
        device: to compute on.
        overwrite: fine-tune again.

    Raises:
        UserError: fine-tuning or labelling cannot be done.
    """
    fine_tune(dataset, fold, device, overwrite=overwrite)
    made_by = {
        "adapters": [file_hash(file) for file in adapter_files(dataset, fold, FINAL_ADAPTER)],
        "pseudo_labels": dataset.settings.to_dict()["pseudo_labels"],
    }
    _, left_out = dataset.split(fold)
    files = {case: dataset.paths.sam_stage(fold) / "left_out" / f"{case}.json" for case in left_out}
    known = {case: _read(file, case, fold, made_by) for case, file in files.items()}
    if any(found is None for found in known.values()):
        labeller = sam_labeller(dataset, fold, device, adapter=FINAL_ADAPTER)
        for case, found in known.items():
            if found is None:
                known[case] = labelled = _label(dataset, labeller, case, fold)
                _write(files[case], labelled, made_by)
    return [found for found in known.values() if found is not None]


def _label(dataset: SFRDataset, labeller: Labeller, identifier: str, fold: int) -> LeftOutCase:
    image, truth, _, properties = LabelledDataset(str(dataset.paths.labelled), [identifier]).load_case(identifier)
    check_grid(properties, image.shape, dataset.plans_manager, dataset.configuration_manager, identifier)
    mask = np.where(truth[:] < 0, -1, 0)
    labels = label_case(
        LoadedCase(identifier, image, mask, properties),
        labeller,
        dataset,
        mirrored=dataset.settings.pseudo_labels.measure_flip_agreement,
    )
    # voxels with the ignore label are background in both maps
    counted = truth[0] != dataset.label_manager.ignore_label
    ours, theirs = (np.where(counted, values, 0).astype(np.int64) for values in (labels.labels[0], truth[0]))
    dice = class_dices(torch.from_numpy(ours), torch.from_numpy(theirs), num_classes=dataset.num_classes)
    return LeftOutCase(identifier, fold, dice, labels.record)


def _read(file: Path, case: str, fold: int, made_by: Mapping[str, Any]) -> LeftOutCase | None:
    if not file.is_file():
        return None
    content = read_json(file, AGAIN, {"made_by": OBJECT, "dice": OBJECT, "record": OBJECT})
    if content.get("made_by") != made_by:
        return None
    return LeftOutCase(case, fold, content["dice"], content["record"])


def _write(file: Path, case: LeftOutCase, made_by: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json({"made_by": made_by, "dice": case.dice, "record": case.record}, file)
