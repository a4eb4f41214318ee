"""What has been planned for a data set, and which raw data its plans stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.cases import RawDataset
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import nnunet_root
from nnunet_sfr.planning.fingerprint import OWN_KEY

_SFR_PLANS = "_SFRPlans.json"
_LABELS_ADDED = "labels_added"
"""In our part of the fingerprint: which cases were labelled later, and the stamp of the raw data with them.

The fingerprint's own stamp stays that of the raw data that it was made from, so that sfr_plan_and_preprocess makes it
anew."""


def planned_configurations(dataset_name: str) -> list[SFRDataset]:
    """Every configuration of every SFR plan.

    Raises:
        UserError: a plan that is damaged or has lost nnU-Net's half.
    """
    folder = nnunet_root("nnUNet_preprocessed") / dataset_name
    datasets = []
    for file in sorted(folder.glob(f"*{_SFR_PLANS}")):
        plans = file.name.removesuffix(_SFR_PLANS)
        configurations = read_json(file, "mend or delete it").get("configurations", {})
        datasets += [open_dataset(dataset_name, configuration, plans) for configuration in configurations]
    return datasets


def require_planned_from(raw: RawDataset, preprocessed: Path) -> None:
    """Check that no raw file has changed since the plans were made.

    Args:
        raw: the listed data set.
        preprocessed: its folder, with an SFR plan.

    Raises:
        UserError: one has, or nobody knows.
    """
    file = fingerprint_file(preprocessed)
    remedy = "run sfr_plan_and_preprocess first, called as before"
    if raw.stamp() not in stamps(read_json(file, remedy)):
        raise UserError(f"{raw.folder}: images, labels or dataset.json have changed since they were planned; {remedy}")


def stamps(fingerprint: Mapping[str, Any]) -> set[str]:
    """Of the raw data that a fingerprint stands for: as it was made from, and with the labels that were added since."""
    own = fingerprint.get(OWN_KEY, {})
    return {part["stamp"] for part in (own, own.get(_LABELS_ADDED, {})) if "stamp" in part}


def knows_added_labels(preprocessed: Path, raw: RawDataset) -> bool:
    """Whether sfr_add_labels has made the raw data what they are, out of those that were planned."""
    own = read_json(fingerprint_file(preprocessed), "run sfr_plan_and_preprocess").get(OWN_KEY, {})
    return bool(own.get(_LABELS_ADDED, {}).get("stamp") == raw.stamp())


def record_added_labels(preprocessed: Path, cases: Iterable[str], stamp: str) -> None:
    """Write into the fingerprint which cases have become labelled; everything else in it stays.

    Args:
        preprocessed: folder of the data set.
        cases: their identifiers.
        stamp: of the raw data with them.
    """
    file = fingerprint_file(preprocessed)
    fingerprint = read_json(file, "run sfr_plan_and_preprocess")
    own = fingerprint.setdefault(OWN_KEY, {})
    before = own.get(_LABELS_ADDED, {}).get("cases", [])
    own[_LABELS_ADDED] = {"cases": sorted({*before, *cases}), "stamp": stamp}
    write_json(fingerprint, file)


def fingerprint_file(preprocessed: Path) -> Path:
    return preprocessed / "dataset_fingerprint.json"
