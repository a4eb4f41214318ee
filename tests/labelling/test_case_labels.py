"""What a prediction becomes: classes or regions, the mask, and what is no label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_decision import EXPECTED_DICE, LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import LoadedCase, Prediction, label_case
from tests.tiny_project import make_project, nnunet_folders

CASE = "unlabelled_00"


@dataclass
class Scripted:
    """Predicts what it was given, whatever the image."""

    probabilities: torch.Tensor
    regions: bool = False
    average: bool = False
    decision: str = LARGEST_PROBABILITY

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        yield Prediction(self.probabilities)


def open_case(dataset: SFRDataset) -> LoadedCase:
    return LoadedCase.open(CASE, UnlabelledDataset(dataset.paths.unlabelled), dataset)


def test_regions_become_label_values(tmp_path: Path) -> None:
    labels: dict[str, Any] = {"background": 0, "whole": [1, 2], "core": 2}
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, classes=2, labels=labels)
        case = open_case(dataset)
        probabilities = torch.full((2, *case.image.shape[1:]), 0.1)
        probabilities[0, :6] = 0.9  # whole alone
        probabilities[:, :3] = 0.8  # whole and core
        labelled = label_case(case, Scripted(probabilities, regions=True), dataset)
        values = labelled.labels[0]
        assert (values[:3] == 2).all()
        assert (values[3:6] == 1).all()
        assert (values[6:] == 0).all()
        sure = labelled.record["class_mean_max_probability"]
        assert sure == {"0": pytest.approx(0.9**2), "1": pytest.approx(0.9**2), "2": pytest.approx(0.8**2)}
        expected = np.where(values == 2, np.float32(0.8**2), np.float32(0.9**2))
        assert labelled.voxel_confidence is not None
        np.testing.assert_allclose(labelled.voxel_confidence, expected, rtol=1e-6)

        # a softmax over the three label values, as SAM gives it for the same data set
        softmax = torch.nn.functional.one_hot(torch.from_numpy(values).long(), 3).permute(3, 0, 1, 2).float()
        np.testing.assert_array_equal(label_case(case, Scripted(softmax), dataset).labels[0], values)


def test_background_outside_the_mask_is_marked(project: SFRDataset) -> None:
    case = open_case(project)
    mask = case.mask[:]
    mask[:, :, :5] = -1
    probabilities = torch.full((2, *case.image.shape[1:]), 0.1)
    probabilities[0, 9:] = 0.9
    probabilities[1, :9] = 0.9
    labels = label_case(replace(case, mask=mask), Scripted(probabilities), project).labels[0]
    assert (labels[:9] == 1).all(), "foreground stays, wherever it lies"
    assert (labels[9:, :5] == -1).all()
    assert (labels[9:, 5:] == 0).all()


def test_numbers_that_are_not_finite_are_no_labels(project: SFRDataset) -> None:
    with pytest.raises(UserError, match="unlabelled_00: the prediction has numbers that are not finite"):
        label_case(open_case(project), Scripted(torch.full((2, 18, 22, 20), torch.nan)), project)


class TwoPlanes:
    """Foreground has 0.9 in one plane and 0.4 in the other in the first slices, and 0.2 and 0.4 in the last.

    With ``average`` the mirrored images count, which have 0.3 everywhere.
    """

    regions = False

    def __init__(self, *, average: bool, decision: str = LARGEST_PROBABILITY) -> None:
        self.average = average
        self.decision = decision

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        for plane, (first, last) in enumerate(((0.9, 0.2), (0.4, 0.4))):
            foreground = torch.full(case.image.shape[1:], last)
            foreground[:9] = first
            yield Prediction(torch.stack([1 - foreground, foreground]), plane)
            if mirrored:
                low = torch.full(case.image.shape[1:], 0.3)
                yield Prediction(torch.stack([1 - low, low]), plane, mirrored=True)


@pytest.mark.parametrize(("average", "first"), [(False, 0.65), (True, 0.475)])
def test_planes_are_averaged_and_compared(average: bool, first: float, project: SFRDataset) -> None:
    """The mean over planes is 0.65 in the first slices; with the mirrored images (0.9 + 0.3 + 0.4 + 0.3) / 4."""
    labelled = label_case(open_case(project), TwoPlanes(average=average), project, mirrored=True)
    assert (labelled.labels[0, :9] == int(first > 0.5)).all()
    assert (labelled.labels[0, 9:] == 0).all()
    certainty = labelled.record["class_mean_max_probability"]["1" if first > 0.5 else "0"]
    last = (0.2 + 0.4 + (0.6 if average else 0)) / (4 if average else 2)
    assert certainty == pytest.approx(first if first > 0.5 else (1 - first + 1 - last) / 2)
    # one plane alone finds foreground (0.9, with the mirrored image 0.6), the other (0.4, 0.35) finds none
    assert labelled.record["plane_agreement"] == 0.0


def test_one_plane_agrees_with_nothing(project: SFRDataset) -> None:
    probabilities = torch.full((2, *open_case(project).image.shape[1:]), 0.5)
    assert label_case(open_case(project), Scripted(probabilities), project).record["plane_agreement"] is None


def test_the_rule_decides_about_every_label_map(project: SFRDataset) -> None:
    """Foreground with 0.45 here and 0.05 elsewhere is found by the expected Dice, and its probability is kept."""
    case = open_case(project)
    probabilities = torch.full((2, *case.image.shape[1:]), 0.05)
    probabilities[1, :9] = 0.45
    probabilities[0] = 1 - probabilities[1]
    by_probability, by_dice = (
        label_case(case, Scripted(probabilities, decision=rule), project)
        for rule in (LARGEST_PROBABILITY, EXPECTED_DICE)
    )
    assert not by_probability.labels.any()
    assert (by_dice.labels[0, :9] == 1).all()
    assert (by_dice.labels[0, 9:] == 0).all()
    assert by_dice.voxel_confidence is not None
    np.testing.assert_allclose(by_dice.voxel_confidence[:9], 0.45, rtol=1e-6)
    np.testing.assert_allclose(by_dice.voxel_confidence[9:], 0.95, rtol=1e-6)
    # eq. 8 is about the probabilities, whatever the labels
    assert by_dice.record["mean_max_probability"] == by_probability.record["mean_max_probability"]

    # of two planes with 0.9 and 0.4 in the first slices, the second finds foreground by this rule too
    planes = label_case(case, TwoPlanes(average=False, decision=EXPECTED_DICE), project)
    assert planes.record["plane_agreement"] > 0
