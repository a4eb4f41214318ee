"""Label values out of the regions that a network found, for regions that overlap.

Importing it needs no torch and no nnU-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from torch import Tensor


def labels_of_regions(probabilities: Tensor, label_manager: LabelManager) -> Tensor:
    """The label value that has exactly the regions that were found; where there is none, nnU-Net's own conversion.

    nnU-Net writes one value per region, a later one of ``regions_class_order`` over an earlier one. With nested regions
    that is the value with exactly the regions found. With others it is not: of the regions A = (1, 2) and B = (2, 3) in
    the order 1, 3 it writes 3 where both were found, which is B alone, and a network that learned from that would lose
    A there.

    Args:
        probabilities: (R, D, H, W), one sigmoid per region; a region is found above 0.5.
        label_manager: with regions.

    Returns:
        (D, H, W) label values.
    """
    labels: Tensor = label_manager.convert_probabilities_to_segmentation(probabilities)
    converted_otherwise = _converted_to_other_values(label_manager)
    if not converted_otherwise:
        return labels
    labels = labels.clone()  # nnU-Net's comes from inference mode, and cannot be written to
    found = probabilities > 0.5  # as nnU-Net asks
    for value, regions in converted_otherwise:
        expected = found.new_tensor(regions).view(-1, *[1] * labels.ndim)
        labels[(found == expected).all(dim=0)] = value
    return labels


def values_with_the_same_regions(label_manager: LabelManager) -> list[list[int]]:
    """Groups of label values that no network of these regions tells apart; each sorted, of two or more.

    Args:
        label_manager: of the data set.
    """
    if not label_manager.has_regions:
        return []
    groups: dict[tuple[bool, ...], list[int]] = {}
    for value in _foreground_values(label_manager):
        groups.setdefault(_regions_of(value, label_manager), []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def _converted_to_other_values(label_manager: LabelManager) -> list[tuple[int, tuple[bool, ...]]]:
    """Label values, with their regions, that nnU-Net's conversion does not give although nothing else has those."""
    shared = {value for group in values_with_the_same_regions(label_manager) for value in group}
    result = []
    for value in _foreground_values(label_manager):
        regions = _regions_of(value, label_manager)
        order: Sequence[int] = label_manager.regions_class_order
        written = [of_region for of_region, found in zip(order, regions, strict=True) if found][-1]
        if written != value and value not in shared:
            result.append((value, regions))
    return result


def _foreground_values(label_manager: LabelManager) -> list[int]:
    values: set[int] = set()
    for region in label_manager.foreground_regions:
        values.update(region if isinstance(region, (tuple, list)) else (region,))
    return sorted(values)


def _regions_of(value: int, label_manager: LabelManager) -> tuple[bool, ...]:
    """Whether each region, in the order of the network's channels, has the value."""
    return tuple(
        value in region if isinstance(region, (tuple, list)) else value == region
        for region in label_manager.foreground_regions
    )
