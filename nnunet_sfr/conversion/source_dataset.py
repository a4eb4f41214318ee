"""What a converter hands over: the content of ``dataset.json``, who serves for what, and the files of every case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Split:
    """Which case serves for what; no case is in two of them.

    Args:
        labelled: cases whose label the training sees.
        unlabelled: cases whose label, if there is one, is kept aside.
        test: cases to measure the trained model on.
        validation: cases that a list sets aside for choosing settings; nothing here reads them.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()

    def by_group(self) -> dict[str, tuple[str, ...]]:
        """The cases by the name of the field; empty validation is left out."""
        groups = {"labelled": self.labelled, "unlabelled": self.unlabelled, "test": self.test}
        return {**groups, "validation": self.validation} if self.validation else groups


@dataclass(frozen=True)
class DatasetDescription:
    """The entries of ``dataset.json`` about images and labels.

    Args:
        channels: their names ("CT" asks nnU-Net for its CT normalisation).
        labels: value by name, 0 for the background, without gaps; several values for a region.
        regions_class_order: nnU-Net's key, for data sets with regions.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """``dataset.json``; the writer sets ``numTraining``."""
        labels = {name: list(value) if isinstance(value, tuple) else value for name, value in self.labels.items()}
        content: dict[str, Any] = {
            "channel_names": {str(index): name for index, name in enumerate(self.channels)},
            "labels": labels,
            "numTraining": 0,
            "file_ending": ENDING,
        }
        if self.regions_class_order:
            content["regions_class_order"] = list(self.regions_class_order)
        return content


@dataclass(frozen=True)
class ConversionRequest:
    """What the user asks of a converter.

    Args:
        source: folder that holds the data set; for ``nnunet`` the name or number of one in ``nnUNet_raw``, too.
        labelled: number of labelled cases.
        seed: draws them; None for the first of the list.
        allow_missing: go without cases of the list that are not there, if the labelled ones are.
        options: of the data set, by name; those that were not given are not there.
    """

    source: Path
    labelled: int
    seed: int | None = None
    allow_missing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class CaseCheck(Protocol):
    """One case to be read and checked before anything is written; goes to another process by pickling."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that will be read."""

    def problem(self) -> str | None:
        """Read all files; one line that names the file and what to do, or None."""


class SourceDataset(Protocol):
    """An opened data set: whoever opened it has checked that every file that it needs is there, by its name."""

    @property
    def split(self) -> Split: ...

    @property
    def dataset_json(self) -> Mapping[str, Any]:
        """nnU-Net's ``dataset.json``; ``numTraining`` is set when it is written."""

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The entries of ``dataset.json`` about where the data are from; None for nothing."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The entries of ``sfr_convert.json`` about the source; cases and version join it."""

    def has_label(self, case: str) -> bool: ...

    def check(self, case: str) -> CaseCheck: ...

    def write_images(self, case: str, folder: Path) -> None:
        """Write ``<case>_<channel, 4 digits><file ending>`` for every channel.

        Args:
            case: one of the source's.
            folder: to write to.
        """

    def write_label(self, case: str, folder: Path) -> None:
        """Write ``<case><file ending>``, on the grid of the image.

        Args:
            case: one of the source's.
            folder: to write to, beside that of the images.
        """
