"""The classes that can be drawn: names and colours of the data set, its regions and its ignore label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_names import IGNORE_NAME
from nnunet_sfr.report.colours import label_classes

IGNORED_COLOUR = "#c8b6ff"
"""No class has it, and it stands out from the grey of an image."""
LARGEST_VALUE = 250
"""The viewer draws label maps of one byte a voxel, and needs a few values for the differences of two of them."""


@dataclass(frozen=True)
class ReviewClass:
    """A label value that can be drawn.

    Args:
        value: in label files.
        name: as in dataset.json; with regions, of the smallest that has it.
        colour: ``#rrggbb``, the one of ``sfr_report``.
        regions: names of the other regions that the value belongs to.
        ignored: whether it is the ignore label, from which nothing is learnt.
    """

    value: int
    name: str
    colour: str
    regions: tuple[str, ...] = ()
    ignored: bool = False


def review_classes(dataset: SFRDataset) -> list[ReviewClass]:
    """Every label value but the background, in the order of the values.

    Raises:
        UserError: there are more values than the viewer can tell apart.
    """
    labels = dataset.dataset_json["labels"]
    regions = _regions(labels)
    classes = [
        ReviewClass(
            one.value,
            one.name,
            one.colour,
            tuple(name for name, values in regions.items() if one.value in values and name != one.name),
        )
        for one in label_classes(dataset)
    ]
    if IGNORE_NAME in labels:
        classes.append(ReviewClass(int(labels[IGNORE_NAME]), IGNORE_NAME, IGNORED_COLOUR, ignored=True))
    largest = max(one.value for one in classes)
    if largest > LARGEST_VALUE:
        raise UserError(
            f"{dataset.paths.dataset_name}: has the label value {largest}, and sfr_review shows values up to "
            f"{LARGEST_VALUE}; correct its label maps in another program and give them to sfr_add_labels"
        )
    return classes


def _regions(labels: Mapping[str, int | list[int] | tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Entries of ``labels`` in dataset.json that have several values."""
    return {name: tuple(values) for name, values in labels.items() if isinstance(values, (list, tuple))}
