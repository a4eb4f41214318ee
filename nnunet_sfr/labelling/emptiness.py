"""Where a labelling of the pool found nothing: cases without any foreground, and classes that no case has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BACKGROUND = "0"


@dataclass(frozen=True)
class Emptiness:
    """What a set of label maps does not contain.

    Args:
        cases: number of label maps.
        empty_cases: identifiers without any foreground, sorted.
        absent_classes: names of the classes that no label map has, in the order of their values.
        classes: number of foreground classes.
    """

    cases: int
    empty_cases: Sequence[str]
    absent_classes: Sequence[str]
    classes: int

    @property
    def mostly_empty(self) -> bool:
        """Whether more than half of the label maps have no foreground."""
        return 2 * len(self.empty_cases) > self.cases

    @property
    def is_suspicious(self) -> bool:
        """Whether a training on these label maps would learn that something is never there."""
        return self.cases > 0 and (self.mostly_empty or bool(self.absent_classes))

    @property
    def about_classes(self) -> str | None:
        """A sentence on the absent classes; None without any."""
        if not self.absent_classes:
            return None
        return (
            f"{len(self.absent_classes)} of {self.classes} classes found in none of the {self.cases} cases: "
            f"{', '.join(self.absent_classes)}"
        )

    @property
    def about_cases(self) -> str | None:
        """A sentence on the empty cases, without their names; None without any."""
        return f"no foreground in {len(self.empty_cases)} of {self.cases} cases" if self.empty_cases else None

    def sentences(self) -> list[str]:
        """What is wrong, one sentence each; none if every class occurs and every case has foreground."""
        found = [] if self.about_classes is None else [self.about_classes]
        if self.about_cases is not None:
            found.append(f"{self.about_cases}: {', '.join(self.empty_cases)}")
        return found


def counted_voxels(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, int]]:
    """Voxels by label value (as text) of the cases whose records have them: another tool may have filled the store
    without counting.

    Args:
        records: by case, as a pseudo-label store has them.
    """
    return {case: record["class_voxels"] for case, record in records.items() if "class_voxels" in record}


def find_emptiness(class_voxels: Mapping[str, Mapping[str, int]], class_names: Mapping[str, str]) -> Emptiness:
    """Count what is missing.

    Args:
        class_voxels: voxels by label value (as text) of every label map, by case (:func:`counted_voxels`).
        class_names: name of every foreground label value, which is given as text
            (:attr:`nnunet_sfr.dataset.SFRDataset.class_names`).
    """
    present = {
        label
        for by_label in class_voxels.values()
        for label, voxels in by_label.items()
        if voxels and label != BACKGROUND
    }
    empty = [
        case
        for case, by_label in class_voxels.items()
        if not any(voxels for label, voxels in by_label.items() if label != BACKGROUND)
    ]
    absent = [class_names[label] for label in sorted(class_names, key=int) if label not in present]
    return Emptiness(len(class_voxels), sorted(empty), absent if class_voxels else [], len(class_names))
