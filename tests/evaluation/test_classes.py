"""What ``dataset.json`` says is to be measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.classes import file_ending, read_classes

LABEL_MAP = np.array([0, 1, 2, 3, 4], np.float32)


def test_labels_and_ignore_label() -> None:
    classes = read_classes({"labels": {"background": 0, "edema": 1, "core": 2, "ignore": 3}})
    assert classes.labels == {"edema": (1,), "core": (2,)}
    assert classes.known_values == (0, 1, 2, 3)
    np.testing.assert_array_equal(classes.mask("core", LABEL_MAP), LABEL_MAP == 2)
    np.testing.assert_array_equal(classes.ignored(LABEL_MAP), LABEL_MAP == 3)
    assert classes.ignored(LABEL_MAP[:2]) is None


def test_regions() -> None:
    classes = read_classes({"labels": {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "active": 4}})
    assert classes.labels == {"whole": (1, 2, 4), "core": (2, 4), "active": (4,)}
    assert classes.mask("whole", LABEL_MAP).tolist() == [False, True, True, False, True]
    assert classes.ignored(LABEL_MAP) is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "labels are missing"),
        ({"background": 0}, "nothing but the background"),
        ({"background": 0, "a": "1"}, "the label a is '1'"),
        ({"background": 0, "a": []}, "the label a is []"),
        ({"background": 0, "a": 1, "ignore": [2, 3]}, "the ignore label is [2, 3]"),
    ],
)
def test_labels_that_cannot_be_used(labels: Any, said: str) -> None:
    with pytest.raises(UserError) as raised:
        read_classes({"labels": labels}, "here/dataset.json")
    assert said in str(raised.value)
    assert str(raised.value).startswith("here/dataset.json: ")


def test_the_file_ending() -> None:
    assert file_ending({"file_ending": ".png"}) == ".png"
    with pytest.raises(UserError, match="file_ending is missing"):
        file_ending({})
