"""What the doctor looks at besides the machine."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_sfr.command_lines import AUTO, Command
from nnunet_sfr.paths import DatasetPaths, Fold, resolve_dataset_name


@dataclass(frozen=True)
class NamedDataset:
    """A data set, as a user names it.

    Args:
        dataset: number or name.
        configuration: nnU-Net's; None for 3d_fullres, or the only one that was planned.
        plans_name: nnU-Net's plans identifier; None for nnU-Net's default, or the only plans.
        fold: whose stages.
        device: that the run is to compute on, or ``auto``.
    """

    dataset: str
    configuration: str | None
    plans_name: str | None
    fold: Fold
    device: str = AUTO

    def options(self) -> Command:
        """``-c``, ``-p``, ``-f`` and ``-device``, as far as they were given."""
        given = (("-c", self.configuration), ("-p", self.plans_name), ("-f", self.fold), ("-device", self.device))
        return tuple(word for name, value in given if value not in (None, "all", AUTO) for word in (name, str(value)))

    def is_planned(self) -> bool:
        """Whether the data set has an SFR plan; plans of nnU-Net alone are none yet."""
        return bool(DatasetPaths(resolve_dataset_name(self.dataset)).sfr_plans_files())
