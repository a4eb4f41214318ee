"""Classes, regions and the ignore label as dataset.json has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.review.classes import IGNORED_COLOUR, review_classes


def with_labels(project: SFRDataset, labels: dict[str, Any], **others: Any) -> SFRDataset:
    return replace(project, dataset_json={**project.dataset_json, "labels": labels, **others})


def test_regions_and_ignore_label(project: SFRDataset) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    classes = review_classes(with_labels(project, labels, regions_class_order=[1, 2, 3]))
    assert [(one.value, one.name, one.regions, one.ignored) for one in classes] == [
        (1, "whole", (), False),
        (2, "core", ("whole",), False),
        (3, "enhancing", ("whole", "core"), False),
        (4, "ignore", (), True),
    ]
    assert classes[-1].colour == IGNORED_COLOUR
    assert len({one.colour for one in classes}) == 4


def test_more_labels_than_a_byte_holds(project: SFRDataset) -> None:
    labels = {"background": 0, **{f"class {value}": value for value in range(1, 252)}}
    with pytest.raises(UserError, match=r"has the label value 251, and sfr_review shows values up to 250; .*another"):
        review_classes(with_labels(project, labels))
