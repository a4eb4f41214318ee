"""What has been planned for a data set, and which raw data its plans stand for."""

from __future__ import annotations

from nnunet_sfr.data.raw_cases import RawDataset
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.paths import SFR_PLANS_ENDING, DatasetPaths
from nnunet_sfr.planning.fingerprint import stamps
from nnunet_sfr.plans import read_sfr_plan


def planned_configurations(dataset_name: str) -> list[SFRDataset]:
    """Every configuration of every SFR plan.

    Raises:
        UserError: a plan that is damaged or has lost nnU-Net's half.
    """
    datasets = []
    for file in DatasetPaths(dataset_name).sfr_plans_files():
        plans = file.name.removesuffix(SFR_PLANS_ENDING)
        configurations = read_sfr_plan(file)["configurations"]
        datasets += [open_dataset(dataset_name, configuration, plans) for configuration in configurations]
    return datasets


def require_planned_from(raw: RawDataset) -> None:
    """Check that no raw file has changed since the plans were made.

    Args:
        raw: the listed data set, which has an SFR plan.

    Raises:
        UserError: one has, or it is not known.
    """
    file = DatasetPaths(raw.folder.name).fingerprint_file
    remedy = "run sfr_plan_and_preprocess first, called as before"
    if not raw.is_that_of(stamps(read_fingerprint(file, remedy))):
        raise UserError(f"{raw.folder}: images, labels or dataset.json have changed since they were planned; {remedy}")
