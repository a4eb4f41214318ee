"""Public data sets in nnU-Net's raw layout: one file a data set, and a line here.

Such a file has a function ``convert`` with the parameters of :data:`Convert`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nnunet_sfr.conversion.raw_dataset import Split


class Convert(Protocol):
    """Build a raw data set; raises a UserError where the source or the number is wrong, and then writes nothing."""

    def __call__(
        self,
        source: Path,
        dataset: Path,
        *,
        labelled: int,
        allow_missing: bool = False,
        overwrite: bool = False,
        bar: bool = True,
    ) -> Split: ...


@dataclass(frozen=True)
class PublicDataset:
    """One that we know how to convert.

    Args:
        module: its file in this package, imported only when it is asked for.
        description: for the help of ``sfr_convert``, with the layouts that it reads.
    """

    module: str
    description: str

    def load(self) -> Convert:
        function: Convert = import_module(f"nnunet_sfr.conversion.{self.module}").convert
        return function


PUBLIC_DATASETS = {
    "LA": PublicDataset(
        "left_atrium",
        "left atrium in MRI (Atrial Segmentation Challenge 2018). SOURCE is the benchmark's folder with "
        "CASE/mri_norm2.h5 or CASE.h5 for each of its 100 cases, divided by the standard lists (80 to train on, the "
        "first N of them labelled, and 20 to test on); or a folder with images/CASE.nii.gz, labels/CASE.nii.gz and "
        "splits.json, which says who is labelled (labeled_N) and who is for testing.",
    ),
}
"""By the name that ``sfr_convert`` takes; the data set is called so too."""
