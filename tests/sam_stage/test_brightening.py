"""Cases that are far darker than every case of the fine-tuning: which they are, and how bright they become."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.data.datasets import LabelledDataset, UnlabelledDataset
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.labelling.case_labels import LoadedCase
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.planning.labels import PLANNED_PSEUDO_LABELS
from nnunet_sfr.sam_stage.brightening import Brightness
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.intensities import AsPreprocessed, ZeroToOne, intensities_of, intensities_of_case
from nnunet_sfr.sam_stage.model import brightness_of, build_stitched_sam, save_adapter
from nnunet_sfr.sam_stage.pseudo_labelling import _Predictors, _SAMLabeller, sam_labeller
from nnunet_sfr.settings import PseudoLabelSettings
from tests.tiny_project import change_settings

SEEN = Brightness(lowest=(0.3,), mean=(0.4,), lowest_high=(0.8,))
MRI = ZeroToOne((None,))
CPU = torch.device("cpu")


class Cases:
    """Cases in memory by the medians inside their masks; outside there are planes of 0, as many as are asked for."""

    def __init__(self, *medians: float, outside: int = 0) -> None:
        self.medians = dict(zip("abcdef", medians, strict=False))
        self.identifiers: Sequence[str] = list(self.medians)
        self.outside = outside

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        image = image_with_median(self.medians[identifier])
        labels = np.zeros(image.shape, np.int8)
        dark = np.zeros((1, self.outside, *image.shape[2:]), np.float32)
        mask = np.full(dark.shape, -1, np.int8)
        return np.concatenate([image, dark], axis=1), np.concatenate([labels, mask], axis=1), None, {}


class InMemory:
    """One case without a mask."""

    identifiers: Sequence[str] = ("a",)

    def __init__(self, image: Any) -> None:
        self.image = image

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        return self.image, None, None, {}


def image_with_median(*medians: float, high: float | None = None) -> Any:
    """(channels, 3, 5, 67) in [0, 1], an odd number of voxels, so that any power keeps the middle one in the middle;
    the outermost percentiles lie at 0 and 1, so that they are the limits.

    Args:
        medians: of the channels.
        high: 90th percentile; None for (1 + 2 median) / 3.
    """
    place = np.clip(np.linspace(-0.015, 1.015, 3 * 5 * 67), 0, 1).reshape(3, 5, 67)
    highs = [(1 + 2 * median) / 3 if high is None else high for median in medians]
    nine_tenths = 0.9 * 1.03 - 0.015
    rising = [
        np.interp(place, (0, 0.5, nine_tenths, 1), (0, median, top, 1))
        for median, top in zip(medians, highs, strict=True)
    ]
    return np.stack(rising).astype(np.float32)


def test_the_median_becomes_the_mean_of_those_seen() -> None:
    image = image_with_median(0.163)
    result = SEEN.brightened(image, None, MRI)
    assert np.median(result) == pytest.approx(0.4, abs=1e-6)
    np.testing.assert_allclose(result, image ** (np.log(0.4) / np.log(0.163)), rtol=1e-5)
    assert (result.min(), result.max()) == (0, 1)
    assert result.dtype == np.float32


@pytest.mark.parametrize("median", [0.1, 0.001, 0.0])
def test_no_power_is_below_a_half(median: float) -> None:
    image = image_with_median(median)
    np.testing.assert_allclose(SEEN.brightened(image, None, MRI), np.sqrt(image), rtol=1e-6)


def test_a_mean_of_one_is_no_target_out_of_reach() -> None:
    image = image_with_median(0.2)
    result = Brightness(lowest=(1.0,), mean=(1.0,), lowest_high=(1.0,)).brightened(image, None, MRI)
    np.testing.assert_allclose(result, np.sqrt(image), rtol=1e-6)


@pytest.mark.parametrize("median", [0.165, 0.25, 0.3001, 0.9, 1.0])
def test_what_is_not_far_darker_than_one_that_was_seen_stays(median: float) -> None:
    """0.3 ** 1.5 is 0.1643."""
    image = image_with_median(median)
    assert SEEN.brightened(image, None, MRI) is image


@pytest.mark.parametrize(("high", "stays"), [(0.71, False), (0.72, True), (0.95, True)])
def test_more_air_is_no_darkness(high: float, stays: bool) -> None:
    """The brightest tenth is tissue however much air there is; 0.8 ** 1.5 is 0.7155."""
    image = image_with_median(0.1, high=high)
    assert np.quantile(image, 0.9) == pytest.approx(high, abs=1e-3)
    assert (SEEN.brightened(image, None, MRI) is image) == stays


def test_a_body_in_the_same_light_with_more_air_around_it_stays() -> None:
    body = np.linspace(0.3, 1, 4000, dtype=np.float32)
    cases = {air: np.concatenate([np.zeros(air, np.float32), body]).reshape(1, 1, 1, -1) for air in (2500, 4500)}
    seen = Brightness.of(InMemory(cases[2500]), MRI)
    assert seen is not None
    assert np.median(cases[4500]) < seen.lowest[0] ** 1.5, "by the median alone it were far darker"
    assert seen.brightened(cases[4500], None, MRI) is cases[4500]
    assert Brightness.from_json(json.dumps({"lowest": [0.3], "mean": [0.4]})) is None, "an adapter without percentiles"


def test_channels_are_judged_one_by_one_and_ct_is_not() -> None:
    image = image_with_median(0.163, 0.163, 0.5)
    ct_first = ZeroToOne(((-1.0, 1.0), None, None))
    result = Brightness(lowest=(0.3, 0.3), mean=(0.4, 0.4), lowest_high=(0.8, 0.8)).brightened(image, None, ct_first)
    np.testing.assert_array_equal(result[[0, 2]], image[[0, 2]])
    assert np.median(result[1]) == pytest.approx(0.4, abs=1e-6)
    assert Brightness.of(Cases(0.3), ZeroToOne(((-1.0, 1.0),))) is None
    assert Brightness.of(Cases(0.3), AsPreprocessed()) is None


def test_cases_are_measured_inside_their_mask_where_nnunet_normalised_there() -> None:
    """Black surroundings would make every brain look dark."""
    cases = Cases(0.3, 0.5, 0.45, outside=9)
    measured = Brightness.of(cases, ZeroToOne((None,), masked=(0,)))
    assert measured is not None
    assert measured.lowest == pytest.approx((0.3,), abs=1e-3)
    assert measured.mean == pytest.approx((1.25 / 3,), abs=1e-3)
    everywhere = Brightness.of(cases, MRI)
    assert everywhere is not None
    assert everywhere.lowest == (0.0,)
    assert Brightness.from_json(measured.to_json()) == measured


def test_a_case_is_compared_inside_its_mask() -> None:
    image, mask, _, _ = Cases(0.25, outside=9).load_case("a")
    assert SEEN.brightened(image, mask, ZeroToOne((None,), masked=(0,))) is image
    assert SEEN.brightened(image, mask, MRI) is not image


def test_sam_sees_the_brightened_case(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[torch.Tensor] = []

    def predict(volume: torch.Tensor) -> torch.Tensor:
        seen.append(volume)
        return volume

    # dark whatever the unit
    case = LoadedCase("case", 1000 * image_with_median(0.163), None, {})
    labeller = _SAMLabeller(MRI, [_Predictors(predict, predict, [1])], average=True, decision="", brightness=SEEN)
    list(labeller.case_probabilities(case, mirrored=True))
    assert "case: far darker than every case that SAM learned from; it sees a brighter image" in capsys.readouterr().out
    assert [volume.median().item() for volume in seen] == pytest.approx([0.4, 0.4], abs=1e-3)
    list(dataclasses.replace(labeller, brightness=None).case_probabilities(case, mirrored=False))
    assert seen[-1].median().item() == pytest.approx(0.163, abs=1e-3)
    assert "darker" not in capsys.readouterr().out


def test_an_adapter_knows_how_bright_its_cases_were(pretrained_project: SFRDataset) -> None:
    """Those of the fold, and no others; the plan says whether labelling makes use of it."""
    folds = with_crosscheck_folds(pretrained_project)
    folder = fine_tune(folds, 0, CPU)
    names, left_out = folds.split(0)
    cases = LabelledDataset(str(pretrained_project.paths.labelled))
    intensities = intensities_of(pretrained_project)
    images = [intensities_of_case(intensities, cases.load_case(name)[0][:], None) for name in names]
    medians = [float(np.median(image)) for image in images]
    measured = brightness_of(folder / FINAL_ADAPTER)
    assert measured is not None
    assert left_out
    assert measured.lowest == pytest.approx((min(medians),))
    assert measured.mean == pytest.approx((np.mean(medians),))
    assert measured.lowest_high == pytest.approx((min(float(np.quantile(image, 0.9)) for image in images),))

    paths = pretrained_project.paths
    for wanted, expected in ((False, None), (True, measured)):
        change_settings(pretrained_project, {"pseudo_labels": {"brighten_dark_cases": wanted}})
        dataset = with_crosscheck_folds(open_dataset(paths.dataset_name, paths.configuration, paths.plans_name))
        labeller: Any = sam_labeller(dataset, 0, CPU, adapter=FINAL_ADAPTER)
        assert labeller.brightness == expected
        case = LoadedCase.open("unlabelled_00", UnlabelledDataset(paths.unlabelled), dataset)
        assert list(labeller.case_probabilities(case, mirrored=False))


def test_adapters_of_earlier_versions_brighten_nothing(pretrained_project: SFRDataset) -> None:
    folder = pretrained_project.paths.sam_stage("all")
    folder.mkdir(parents=True)
    save_adapter(build_stitched_sam(pretrained_project), pretrained_project, folder / FINAL_ADAPTER)
    assert brightness_of(folder / FINAL_ADAPTER) is None
    assert not PseudoLabelSettings().brighten_dark_cases
    assert PLANNED_PSEUDO_LABELS.brighten_dark_cases
