"""Where a run keeps its state, and the locks of a data set.

::

    nnUNet_results/Dataset042_Name/SFR_run__nnUNetPlans__3d_fullres/
        hashes.json                       hashes of files that have not changed since
        fold_all/SFR_MT/                  one folder a run, named after its last trainer
            state.json                    what was done, from what and with what result
            logs/train.log                what each step said
    nnUNet_preprocessed/Dataset042_Name/
        .sfr_run.lock, .sfr_run.lock.json     who is at work on the data set
        .sfr_run.step.lock                    held while a process of a step lives
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_sfr.paths import Fold, nnunet_root

TRAINER_PREFIX = "nnUNetTrainer"


@dataclass(frozen=True)
class DatasetLocks:
    """The files by which those who change a data set keep out of each other's way.

    Args:
        dataset_name: nnU-Net's full name.
    """

    dataset_name: str

    @property
    def lock(self) -> Path:
        return nnunet_root("nnUNet_preprocessed") / self.dataset_name / ".sfr_run.lock"

    @property
    def lock_holder(self) -> Path:
        return self.lock.with_name(".sfr_run.lock.json")

    @property
    def step_lock(self) -> Path:
        return self.lock.with_name(".sfr_run.step.lock")


@dataclass(frozen=True)
class RunFolder(DatasetLocks):
    """The paths of one run.

    Args:
        dataset_name: nnU-Net's full name.
        plans_name: nnU-Net's plans identifier.
        configuration: nnU-Net's.
        fold: of the run.
        name: what tells it from other runs on this fold: ``SFR_MT``, ``SFRPlus_MT_5epochs``.
    """

    plans_name: str
    configuration: str
    fold: Fold
    name: str

    @property
    def all_runs(self) -> Path:
        """The folder of all runs with this plan and configuration."""
        runs = f"SFR_run__{self.plans_name}__{self.configuration}"
        return nnunet_root("nnUNet_results") / self.dataset_name / runs

    @property
    def folder(self) -> Path:
        return self.all_runs / f"fold_{self.fold}" / self.name

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def hashes(self) -> Path:
        return self.all_runs / "hashes.json"

    def log(self, step: str) -> Path:
        return self.logs / f"{step}.log"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def other_states(self) -> list[Path]:
        """The state files of the other runs, whose steps can be the same as ours."""
        return sorted(file for file in self.all_runs.glob("fold_*/*/state.json") if file != self.state)
