"""Which label value stands for the regions that were found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_sfr.label_names import class_names
from nnunet_sfr.region_labels import labels_of_regions, values_with_the_same_regions


def manager(order: list[int], **regions: Any) -> LabelManager:
    return LabelManager({"background": 0, **regions}, order)


def every_combination(regions: int) -> torch.Tensor:
    """Probabilities (R, 1, 1, 2^R): each voxel has another set of regions."""
    sets = list(itertools.product((0.2, 0.9), repeat=regions))
    return torch.tensor(sets).T.reshape(regions, 1, 1, -1)


def test_both_of_two_overlapping_regions_are_the_value_that_has_both() -> None:
    labels = manager([1, 3], a=[1, 2], b=[2, 3])
    # none, b, a, both; nnU-Net itself writes 3 for both
    assert labels_of_regions(every_combination(2), labels).flatten().tolist() == [0, 3, 1, 2]
    assert labels.convert_probabilities_to_segmentation(every_combination(2)).flatten().tolist() == [0, 3, 1, 3]


@pytest.mark.parametrize(
    ("order", "regions"),
    [
        ([1, 2, 3], {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}),
        ([1, 2], {"kidney": [1, 2], "tumour": 2}),
        ([1, 3], {"lungs": [1, 2], "tumour": 3}),  # 1 and 2 cannot be told apart
    ],
)
def test_elsewhere_it_is_nnunets_conversion(order: list[int], regions: dict[str, Any]) -> None:
    labels, found = manager(order, **regions), every_combination(len(regions))
    assert torch.equal(labels_of_regions(found, labels), labels.convert_probabilities_to_segmentation(found))


def test_values_that_no_network_tells_apart() -> None:
    labels = manager([1, 3], lungs=[1, 2], tumour=3)
    assert values_with_the_same_regions(labels) == [[1, 2]]
    assert values_with_the_same_regions(manager([1, 2], kidney=[1, 2], tumour=2)) == []
    assert values_with_the_same_regions(LabelManager({"background": 0, "organ": 1}, None)) == []
    names = class_names({"labels": {"background": 0, "lungs": [1, 2], "tumour": 3}})
    assert names == {"1": "lungs (1)", "2": "lungs (2)", "3": "tumour"}
