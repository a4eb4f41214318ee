"""Confidence against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from nnunet_sfr.confidence import (
    agreement,
    confidence_record,
    expected_dice,
    near_boundary,
    no_confidence,
    normalised_entropy,
)
from nnunet_sfr.confidence_measures import MEASURES


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


def test_confidence_is_that_of_what_was_decided() -> None:
    """Foreground at 0.3 is decided where that promises the highest Dice, and is not as sure as background at 0.7."""
    foreground = torch.tensor([[[0.3, 0.45, 0.1]]])
    labels = torch.tensor([[[1, 1, 0]]])
    record = confidence_record(torch.stack([1 - foreground, foreground]), labels, num_classes=2, regions=False)
    assert record["foreground_mean_max_probability"] == pytest.approx((0.3 + 0.45) / 2)
    assert record["class_mean_max_probability"] == {"0": pytest.approx(0.9), "1": pytest.approx((0.3 + 0.45) / 2)}
    assert record["mean_max_probability"] == pytest.approx((0.7 + 0.55 + 0.9) / 3)


def test_certain_background_alone_is_no_confidence() -> None:
    probabilities = torch.tensor([0.995, 0.005]).view(2, 1, 1, 1).expand(2, 2, 3, 4)
    record = confidence_record(probabilities, torch.zeros(2, 3, 4, dtype=torch.long), num_classes=2, regions=False)
    assert record["mean_max_probability"] == pytest.approx(0.995)
    assert MEASURES["mean_max_probability"].value(record) is None
    found = {**record, "class_voxels": {"0": 23, "1": 1}}
    assert MEASURES["mean_max_probability"].value(found) == record["mean_max_probability"]
    assert MEASURES["flip_agreement"].value({**record, "flip_agreement": 0.0}) == 0.0, "the mirrored images differ"


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
    assert of_region.keys() == of_classes.keys()
    for key, value in of_region.items():
        assert of_classes[key] == pytest.approx(value), key


def test_without_probabilities_voxels_are_counted_and_nothing_is_claimed() -> None:
    labels = torch.tensor([[[0, 2, 2]]])
    with_numbers = confidence_record(torch.rand(3, 1, 1, 3), labels, num_classes=3, regions=False)
    record = no_confidence(labels, num_classes=3)
    assert record.keys() == with_numbers.keys()
    assert record["class_voxels"] == with_numbers["class_voxels"] == {"0": 1, "1": 0, "2": 2}
    assert record["mean_max_probability"] is record["foreground_mean_max_probability"] is None
    assert record["class_mean_max_probability"] == {"0": None, "1": None, "2": None}


def test_expected_dice_by_hand() -> None:
    foreground = torch.tensor([[[0.1, 0.6, 0.9, 0.4]]])
    softmax = torch.stack([1 - foreground, foreground])
    labels = softmax.argmax(0)
    by_hand = 2 * (0.6 + 0.9) / (2 + 0.1 + 0.6 + 0.9 + 0.4)
    assert expected_dice(softmax, labels, regions=False) == pytest.approx(by_hand)
    assert expected_dice(foreground, labels, regions=True) == pytest.approx(by_hand)
    assert expected_dice(softmax, torch.zeros_like(labels), regions=False) is None
    certain = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 2, 2]]]), 3).permute(3, 0, 1, 2).float()
    assert expected_dice(certain, certain.argmax(0), regions=False) == 1.0


def test_expected_dice_is_the_dice_that_calibrated_probabilities_lead_to() -> None:
    """Truths are drawn from the probabilities; their mean Dice with the decision is what was promised."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(12, 12, 12, generator=generator) ** 2
    decision = probability > 0.5
    dices = []
    for _ in range(50):
        truth = torch.rand(probability.shape, generator=generator) < probability
        dices.append(2 * float((truth & decision).sum()) / float(truth.sum() + decision.sum()))
    promised = expected_dice(probability[None], decision.long(), regions=True)
    assert promised == pytest.approx(sum(dices) / len(dices), abs=0.005)


def test_agreement_by_hand() -> None:
    ours = torch.tensor([[[-1, 1, 1, 2, 0]]])
    theirs = torch.tensor([[[0, 1, 2, 0, 0]]])
    # class 1: 2 * 1 / (2 + 1); class 2: 0 / (1 + 1); class 3: neither has it
    assert agreement(ours, theirs, num_classes=4) == pytest.approx((2 / 3 + 0) / 2)
    assert agreement(ours, ours, num_classes=4) == 1.0
    nothing = torch.zeros_like(ours)
    assert agreement(ours, nothing, num_classes=4) == 0.0
    assert agreement(nothing, -nothing, num_classes=4) is None


def test_entropy_counts_near_boundaries_alone() -> None:
    labels = torch.zeros(9, 9, 9, dtype=torch.long)
    labels[4, 4, 4] = 1
    near = near_boundary(labels)
    assert int(near.sum()) == 5**3, "two voxels to each side of the one that differs"
    assert near[2:7, 2:7, 2:7].all()
    assert not near_boundary(torch.ones_like(labels)).any()

    unsure = torch.where(near, 0.5, 1.0)
    probabilities = torch.stack([unsure, 1 - unsure])
    record = confidence_record(probabilities, labels, num_classes=2, regions=False)
    assert record["boundary_entropy"] == pytest.approx(1.0)
    record = confidence_record(1 - 0 * probabilities, labels, num_classes=2, regions=False)
    assert record["boundary_entropy"] == 0.0


def test_entropy_is_normalised() -> None:
    assert float(normalised_entropy(torch.full((4, 1, 1, 1), 0.25), regions=False)) == pytest.approx(1.0)
    assert float(normalised_entropy(torch.tensor([1.0, 0, 0]).view(3, 1, 1, 1), regions=False)) == 0.0
    assert float(normalised_entropy(torch.tensor([0.5, 1.0]).view(2, 1, 1, 1), regions=True)) == pytest.approx(0.5)


def test_every_measure_rises_with_confidence() -> None:
    """The same organ, first guessed at and then known."""
    labels = torch.zeros(8, 8, 8, dtype=torch.long)
    labels[2:6, 2:6, 2:6] = 1
    values = []
    for sureness, views in ((0.6, labels.roll(2, 0)), (0.95, labels)):
        foreground = torch.where(labels == 1, sureness, 1 - sureness)
        record = confidence_record(
            torch.stack([1 - foreground, foreground]),
            labels,
            num_classes=2,
            regions=False,
            mirrored=[views, labels],
            planes=[views, labels],
            others={"previous_round_agreement": views, "sam_agreement": views.roll(1, 1)},
        )
        values.append({name: measure.value(record) for name, measure in MEASURES.items()})
    for name in MEASURES:
        guessed, known = values[0][name], values[1][name]
        assert guessed is not None
        assert known is not None
        assert guessed < known, name
    assert values[0]["flip_agreement"] == pytest.approx((0.5 + 1) / 2)
    promised = 2 * 64 * 0.6 / (64 + 64 * 0.6 + 448 * 0.4)
    assert values[0]["expected_dice"] == pytest.approx(promised)
    assert values[0]["estimated_dice"] == pytest.approx(0.75 * promised)
    assert values[0]["previous_round_agreement"] == pytest.approx(0.5)
    assert values[0]["sam_agreement"] == pytest.approx(0.5 * 0.75)
    assert values[0]["agreement"] == pytest.approx(0.75 * 0.5 * 0.75)
    assert values[0]["joint_agreement"] == pytest.approx(0.75**2 * 0.5 * 0.75)
    assert values[0]["boundary_entropy"] == pytest.approx(1 - 0.971, abs=1e-3), "0.6 and 0.4: 0.971 bits"


def test_the_joint_agreement_counts_sams_own_where_it_is_known() -> None:
    measure = MEASURES["joint_agreement"]
    record = {"flip_agreement": 0.9, "sam_agreement": 0.8, "sam_flip_agreement": 0.7}
    assert measure.value(record) == pytest.approx(0.81 * 0.49 * 0.8)
    assert measure.value({**record, "sam_flip_agreement": None}) == pytest.approx(0.81 * 0.8)
    assert measure.value({**record, "sam_flip_agreement": 0.0}) == 0.0
    assert measure.value({**record, "sam_agreement": None}) is None


def test_what_some_records_lack_counts_for_none() -> None:
    measure = MEASURES["joint_agreement"]
    new = {"flip_agreement": 0.9, "sam_agreement": 0.8, "sam_flip_agreement": 0.7}
    old = {"flip_agreement": 0.9, "sam_agreement": 0.8}
    nothing_by_sam = {"flip_agreement": 0.9, "sam_agreement": 0.0, "sam_flip_agreement": None}
    alone = {"a": 0.81 * 0.49 * 0.8, "b": 0.0}
    assert measure.values({"a": new, "b": nothing_by_sam}) == pytest.approx(alone)
    assert measure.values({"a": new, "b": old}) == pytest.approx(dict.fromkeys("ab", 0.81 * 0.8))
    assert MEASURES["agreement"].values({"a": new, "b": {}}) == {"a": pytest.approx(0.72), "b": None}


def test_the_least_sure_class_speaks_for_all() -> None:
    record = {"class_mean_max_probability": {"0": 0.1, "1": 0.9, "2": 0.7, "3": None}}
    assert MEASURES["class_mean_max_probability"].value(record) == 0.7
    assert MEASURES["class_mean_max_probability"].value({"class_mean_max_probability": {"0": 0.9, "1": None}}) is None
    assert all(measure.value({}) is None for measure in MEASURES.values()), "a record of an earlier version"
