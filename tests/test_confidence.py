"""Confidence against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from nnunet_sfr.confidence import confidence_record


def test_means_by_hand() -> None:
    foreground = torch.tensor([[[0.1, 0.6, 0.9, 0.3]]])  # one slice, one row, four voxels
    probabilities = torch.stack([1 - foreground, foreground])
    record = confidence_record(probabilities, probabilities.argmax(0))
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
    record = confidence_record(probabilities, probabilities.argmax(0))
    assert record["mean_max_probability"] == pytest.approx(0.995, abs=1e-4)
    assert record["foreground_mean_max_probability"] == pytest.approx(0.5, abs=1e-4)


def test_no_foreground_is_no_number() -> None:
    probabilities = torch.stack([torch.ones(2, 2, 2), torch.zeros(2, 2, 2)])
    record = confidence_record(probabilities, probabilities.argmax(0))
    assert record["foreground_mean_max_probability"] is None
    assert record["class_mean_max_probability"]["1"] is None
    assert record["class_voxels"]["1"] == 0
