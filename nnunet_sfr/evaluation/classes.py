"""What is measured: the classes, or the regions, that ``dataset.json`` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.errors import UserError
from nnunet_sfr.label_names import IGNORE_NAME
from nnunet_sfr.paths import DATASET_JSON


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Args:
        labels: the label values of every class or region, by name, without the background.
        ignore_label: value of voxels in the truth that do not count; None if there is none.
    """

    labels: dict[str, tuple[int, ...]]
    ignore_label: int | None

    @property
    def known_values(self) -> tuple[int, ...]:
        """Every value that a truth may have."""
        values = {value for labels in self.labels.values() for value in labels} | {0}
        return tuple(sorted(values | ({self.ignore_label} if self.ignore_label is not None else set())))

    def mask(self, name: str, label_map: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where a label map has one of the values of a class.

        Args:
            name: of the class or region.
            label_map: of any shape.
        """
        first, *others = self.labels[name]
        mask: NDArray[np.bool_] = label_map == first
        for value in others:
            mask |= label_map == value
        return mask

    def ignored(self, truth: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Where the truth says that voxels do not count; None if it never does."""
        if self.ignore_label is None:
            return None
        ignored: NDArray[np.bool_] = truth == self.ignore_label
        return ignored if ignored.any() else None


def read_classes(dataset_json: Mapping[str, Any], source: str = DATASET_JSON) -> Classes:
    """The classes of ``dataset.json``; those of a data set with regions are its regions, as nnU-Net defines them.

    Args:
        dataset_json: its content.
        source: where it comes from, for the message.

    Raises:
        UserError: the key ``labels`` is missing or not nnU-Net's format, or names the background only.
    """
    declared = dataset_json.get("labels")
    remedy = "correct the key labels, as nnU-Net's data set format asks for"
    if not isinstance(declared, Mapping):
        raise UserError(f"{source}: labels are missing or no JSON object; {remedy}")
    values: dict[str, tuple[int, ...]] = {}
    for name, entry in declared.items():
        values[name] = tuple(entry) if isinstance(entry, (list, tuple)) else (entry,)
        if not values[name] or not all(isinstance(value, int) for value in values[name]):
            raise UserError(f"{source}: the label {name} is {entry!r}, no number and no list of numbers; {remedy}")
    ignore = values.pop(IGNORE_NAME, None)
    if ignore is not None and len(ignore) != 1:
        raise UserError(f"{source}: the ignore label is {list(ignore)}, not a single number; {remedy}")
    labels = {name: numbers for name, numbers in values.items() if any(numbers)}
    if not labels:
        raise UserError(f"{source}: labels name nothing but the background; {remedy}")
    return Classes(labels, None if ignore is None else ignore[0])


def file_ending(dataset_json: Mapping[str, Any], source: str = DATASET_JSON) -> str:
    """Of the label maps.

    Args:
        dataset_json: its content.
        source: named in errors.

    Raises:
        UserError: ``dataset.json`` does not say.
    """
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not ending:
        raise UserError(f"{source}: the key file_ending is missing; add it, .nii.gz for example")
    return ending
