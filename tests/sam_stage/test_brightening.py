"""Cases that are darker than every labelled one: which they are, and how bright they become."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.labelling.case_labels import LoadedCase
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.planning.labels import PLANNED_PSEUDO_LABELS
from nnunet_sfr.sam_stage.brightening import Brightness, brightness_of_labelled, inside
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.intensities import AsPreprocessed, ZeroToOne, intensities_of, intensities_of_case
from nnunet_sfr.sam_stage.pseudo_labelling import _Predictors, _SAMLabeller, sam_labeller
from nnunet_sfr.settings import PseudoLabelSettings
from tests.tiny_project import change_settings

LABELLED = Brightness(channels=(0,), lowest=(0.3,), mean=(0.4,))
CPU = torch.device("cpu")


def image_with_median(*medians: float) -> Any:
    """(channels, 3, 5, 7) in [0, 1], an odd number of voxels, so that any power keeps the middle one in the middle."""
    ramp = np.linspace(-1, 1, 3 * 5 * 7).reshape(3, 5, 7)
    rising = [np.where(ramp < 0, median * (1 + ramp), median + ramp * (1 - median)) for median in medians]
    return np.stack(rising).astype(np.float32)


def test_the_median_becomes_the_mean_of_the_labelled() -> None:
    image = image_with_median(0.2)
    result = LABELLED.brightened(image, None)
    assert np.median(result) == pytest.approx(0.4, abs=1e-6)
    np.testing.assert_allclose(result, image ** (np.log(0.4) / np.log(0.2)), rtol=1e-5)
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize("median", [0.1, 0.001, 0.0])
def test_no_power_is_below_a_half(median: float) -> None:
    image = image_with_median(median)
    np.testing.assert_allclose(LABELLED.brightened(image, None), np.sqrt(image), rtol=1e-6)


@pytest.mark.parametrize("median", [0.3001, 0.35, 0.9])
def test_what_is_as_bright_as_a_labelled_case_stays(median: float) -> None:
    image = image_with_median(median)
    assert LABELLED.brightened(image, None) is image


def test_channels_are_judged_one_by_one_and_ct_is_not() -> None:
    image = image_with_median(0.2, 0.2, 0.5)
    result = Brightness(channels=(1, 2), lowest=(0.3, 0.3), mean=(0.4, 0.4)).brightened(image, None)
    np.testing.assert_array_equal(result[[0, 2]], image[[0, 2]])
    assert np.median(result[1]) == pytest.approx(0.4, abs=1e-6)
    assert ZeroToOne((None, (-1.0, 1.0), None)).limited_by_case == (0, 2)
    assert AsPreprocessed().limited_by_case == ()


def test_medians_are_taken_inside_the_mask() -> None:
    """Black surroundings would make every brain look dark."""
    image = np.zeros((1, 4, 5, 7), np.float32)
    image[0, :1] = 0.35
    mask = np.full(image.shape, -1, np.int8)
    mask[0, :1] = 0
    masked = ZeroToOne((None,), masked=(0,))
    assert LABELLED.brightened(image, inside(mask, masked)) is image
    assert LABELLED.brightened(image, inside(mask, ZeroToOne((None,)))) is not image
    assert Brightness.of((0,), [(image, inside(mask, masked))]).lowest == pytest.approx((0.35,))


def test_the_labelled_cases_of_the_fold_are_measured(pretrained_project: SFRDataset) -> None:
    dataset = pretrained_project
    intensities = intensities_of(dataset)
    names, _ = dataset.split("all")
    cases = LabelledDataset(str(dataset.paths.labelled), names)
    medians = [np.median(intensities_of_case(intensities, cases.load_case(name)[0][:], None)) for name in names]
    assert len(set(medians)) == len(names) > 1
    measured = brightness_of_labelled(dataset, "all", intensities)
    assert measured is not None
    assert measured.channels == (0,)
    assert measured.lowest == pytest.approx((min(medians),))
    assert measured.mean == pytest.approx((np.mean(medians),))
    assert brightness_of_labelled(dataset, "all", AsPreprocessed()) is None


def test_sam_sees_the_brightened_case() -> None:
    seen: list[torch.Tensor] = []

    def predict(volume: torch.Tensor) -> torch.Tensor:
        seen.append(volume)
        return volume

    # percentiles of a ramp cut little off; the case is dark whatever its unit
    image = 1000 * image_with_median(0.15)
    labeller = _SAMLabeller(
        ZeroToOne((None,)), [_Predictors(predict, predict, [1])], average=True, decision="", brightness=LABELLED
    )
    list(labeller.case_probabilities(LoadedCase("case", image, image, {}), mirrored=True))
    assert len(seen) == 2
    for volume in seen:
        assert volume.median() == pytest.approx(0.15 ** max(np.log(0.4) / np.log(0.15), 0.5), abs=0.02)
    plain = dataclasses.replace(labeller, brightness=None)
    list(plain.case_probabilities(LoadedCase("case", image, image, {}), mirrored=False))
    assert seen[-1].median() == pytest.approx(0.15, abs=0.02)


def test_a_plan_says_whether_dark_cases_are_brightened(pretrained_project: SFRDataset) -> None:
    fine_tune(pretrained_project, "all", CPU)
    paths = pretrained_project.paths
    measured = brightness_of_labelled(pretrained_project, "all", intensities_of(pretrained_project))
    for wanted, expected in ((False, None), (True, measured)):
        change_settings(pretrained_project, {"pseudo_labels": {"brighten_dark_cases": wanted}})
        dataset = open_dataset(paths.dataset_name, paths.configuration, paths.plans_name)
        labeller: Any = sam_labeller(dataset, "all", CPU, adapter=FINAL_ADAPTER)
        assert labeller.brightness == expected


def test_plans_of_earlier_versions_keep_their_labels() -> None:
    assert not PseudoLabelSettings().brighten_dark_cases
    assert PLANNED_PSEUDO_LABELS.brighten_dark_cases
