"""Confidence against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from nnunet_sfr.confidence import confidence_record, no_confidence


def test_means_by_hand() -> None:
    foreground = torch.tensor([[[0.1, 0.6, 0.9, 0.3]]])  # one slice, one row, four voxels
    probabilities = torch.stack([1 - foreground, foreground])
    record = confidence_record(probabilities, probabilities.argmax(0), num_classes=2, regions=False)
    assert record["mean_max_probability"] == pytest.approx((0.9 + 0.6 + 0.9 + 0.7) / 4)
    assert record["foreground_mean_max_probability"] == pytest.approx((0.6 + 0.9) / 2)
    assert record["class_mean_max_probability"] == {
        "0": pytest.approx((0.9 + 0.7) / 2),
        "1": pytest.approx((0.6 + 0.9) / 2),
    }
    assert record["class_voxels"] == {"0": 2, "1": 2}


def test_background_hides_an_unsure_organ_from_equation_8() -> None:
    """docs/method.md, section 3: an organ of 1 % held at 0.5 still gives 0.995."""
    foreground = torch.zeros(10, 10, 10)
    foreground[0] = torch.cat([torch.full((1, 10), 0.5 + 1e-6), torch.zeros(9, 10)])
    probabilities = torch.stack([1 - foreground, foreground])
    record = confidence_record(probabilities, probabilities.argmax(0), num_classes=2, regions=False)
    assert record["mean_max_probability"] == pytest.approx(0.995, abs=1e-4)
    assert record["foreground_mean_max_probability"] == pytest.approx(0.5, abs=1e-4)


def test_no_foreground_is_no_number() -> None:
    probabilities = torch.stack([torch.ones(2, 2, 2), torch.zeros(2, 2, 2)])
    record = confidence_record(probabilities, probabilities.argmax(0), num_classes=2, regions=False)
    assert record["foreground_mean_max_probability"] is None
    assert record["class_mean_max_probability"]["1"] is None
    assert record["class_voxels"]["1"] == 0


def test_regions_by_hand() -> None:
    """Two nested regions: how sure the model is of exactly those that it found."""
    whole = torch.tensor([[[0.9, 0.8, 0.2]]])
    core = torch.tensor([[[0.7, 0.4, 0.1]]])
    labels = torch.tensor([[[2, 1, 0]]])
    record = confidence_record(torch.stack([whole, core]), labels, num_classes=3, regions=True)
    sure = {"2": 0.9 * 0.7, "1": 0.8 * 0.6, "0": 0.8 * 0.9}
    assert record["mean_max_probability"] == pytest.approx(sum(sure.values()) / 3)
    assert record["foreground_mean_max_probability"] == pytest.approx((sure["1"] + sure["2"]) / 2)
    assert record["class_mean_max_probability"] == {label: pytest.approx(value) for label, value in sure.items()}
    assert record["class_voxels"] == {"0": 1, "1": 1, "2": 1}


def test_a_single_region_is_as_sure_as_two_classes() -> None:
    """Both definitions are one: a sigmoid p is the softmax (1 - p, p)."""
    region = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = (region[0] > 0.5).long()
    of_region = confidence_record(region, labels, num_classes=2, regions=True)
    of_classes = confidence_record(torch.cat([1 - region, region]), labels, num_classes=2, regions=False)
    assert of_region == of_classes


def test_without_probabilities_voxels_are_counted_and_nothing_is_claimed() -> None:
    labels = torch.tensor([[[0, 2, 2]]])
    with_numbers = confidence_record(torch.rand(3, 1, 1, 3), labels, num_classes=3, regions=False)
    record = no_confidence(labels, num_classes=3)
    assert record.keys() == with_numbers.keys()
    assert record["class_voxels"] == with_numbers["class_voxels"] == {"0": 1, "1": 0, "2": 2}
    assert record["mean_max_probability"] is record["foreground_mean_max_probability"] is None
    assert record["class_mean_max_probability"] == {"0": None, "1": None, "2": None}
