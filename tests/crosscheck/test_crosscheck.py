"""Cases that are left out, and what they say about the labels of the unlabelled ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_sfr.crosscheck import left_out
from nnunet_sfr.crosscheck.findings import expected_dice, summarise, verdict
from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.crosscheck.left_out import LeftOutCase
from nnunet_sfr.crosscheck.run import crosscheck, lines
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_decision import LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import Prediction
from nnunet_sfr.paths import FINAL_ADAPTER

CPU = torch.device("cpu")


def found(identifier: str, dice: float | None, flip: float | None, fold: int = 0) -> LeftOutCase:
    record = {"flip_agreement": flip, "class_voxels": {"0": 10, "1": 5 if dice else 0}}
    return LeftOutCase(identifier, fold, {"1": dice}, record)


@pytest.mark.parametrize(("count", "folds"), [(2, 2), (3, 3), (7, 5)])
def test_every_case_is_left_out_once(count: int, folds: int, project: SFRDataset) -> None:
    names = [f"case_{index}" for index in range(count)]
    with mock.patch.object(SFRDataset, "labelled_identifiers", return_value=names):
        dataset = with_crosscheck_folds(project)
    assert dataset.splits is not None
    assert len(dataset.splits) == folds
    assert sorted(case for _, validation in dataset.splits for case in validation) == names
    for training, validation in dataset.splits:
        assert sorted([*training, *validation]) == names
    assert dataset.paths.sam_stage(1) != project.paths.sam_stage(1)


def test_one_case_cannot_be_left_out(project: SFRDataset) -> None:
    with (
        mock.patch.object(SFRDataset, "labelled_identifiers", return_value=["only"]),
        pytest.raises(UserError, match="has one labelled case; what SAM makes of cases"),
    ):
        with_crosscheck_folds(project)


class HalfOfTheTruth:
    """Predicts the true labels of a case, but only in the first half of the slices."""

    regions: ClassVar[bool] = False
    average: ClassVar[bool] = False
    decision: ClassVar[str] = LARGEST_PROBABILITY

    def __init__(self, dataset: SFRDataset) -> None:
        self.folder = str(dataset.paths.labelled)

    def case_probabilities(
        self, identifier: str, image: Any, properties: Mapping[str, Any], *, mirrored: bool
    ) -> Iterator[Prediction]:
        truth = infer_dataset_class(self.folder)(self.folder, [identifier]).load_case(identifier)[1][0] == 1
        foreground = torch.from_numpy(np.where(truth, 0.8, 0.1)).float()
        foreground[foreground.shape[0] // 2 :] = 0.1
        yield Prediction(torch.stack([1 - foreground, foreground]))
        if mirrored:
            yield Prediction(torch.stack([1 - foreground, foreground]), mirrored=True)


def write_adapter(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
    folder = dataset.paths.sam_stage(fold)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FINAL_ADAPTER).write_text(f"of fold {fold}")
    return folder


def test_dice_is_that_of_the_cases_left_out(project: SFRDataset) -> None:
    with (
        mock.patch.object(left_out, "fine_tune", side_effect=write_adapter) as fine_tune,
        mock.patch.object(
            left_out, "sam_labeller", side_effect=lambda dataset, *_, **__: HalfOfTheTruth(dataset)
        ) as sam,
    ):
        findings = crosscheck(project, CPU)
        again = crosscheck(project, CPU)
    assert fine_tune.call_count == 2 * findings.folds
    assert sam.call_count == findings.folds, "what is labelled is not labelled again"
    assert again == findings
    assert not project.paths.splits_file.exists()

    cases = infer_dataset_class(str(project.paths.labelled))(str(project.paths.labelled))
    expected = {}
    for identifier in cases.identifiers:
        truth = cases.load_case(identifier)[1][0] == 1
        half = truth[: truth.shape[0] // 2].sum()
        expected[identifier] = 2 * half / (half + truth.sum())
    assert dict(findings.cases) == pytest.approx(expected)
    assert findings.mean == pytest.approx(np.mean(list(expected.values())))
    written = json.loads(project.paths.crosscheck_result.read_text(encoding="utf-8"))
    assert written["mean"] == findings.mean
    # the store of the tiny project was filled by a threshold, of which SAM's Dice says nothing
    assert (written["expected"], written["num_unlabelled"]) == (None, 0)


def test_another_adapter_is_asked_again(project: SFRDataset) -> None:
    def write_another(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
        folder = write_adapter(dataset, fold, device, overwrite=overwrite)
        (folder / FINAL_ADAPTER).write_text("another")
        return folder

    with mock.patch.object(left_out, "sam_labeller", side_effect=lambda data, *_, **__: HalfOfTheTruth(data)) as sam:
        with mock.patch.object(left_out, "fine_tune", side_effect=write_adapter):
            folds = crosscheck(project, CPU).folds
        with mock.patch.object(left_out, "fine_tune", side_effect=write_another):
            crosscheck(project, CPU)
    assert sam.call_count == 2 * folds


def test_numbers_of_the_summary() -> None:
    cases = [found("a", 0.9, 0.95), found("b", 0.5, 0.7, fold=1), found("c", 0.0, 0.6, fold=2), found("d", None, None)]
    records: list[dict[str, Any]] = [{"flip_agreement": 0.8}, {"flip_agreement": 0.9}, {"flip_agreement": None}]
    findings = summarise(cases, {"1": "atrium"}, records)
    assert findings.folds == 3
    assert findings.cases == [("c", 0.0), ("b", 0.5), ("a", 0.9)]
    assert findings.mean == pytest.approx(1.4 / 3)
    assert findings.low is not None
    assert 0.0 <= findings.low < findings.mean
    atrium = findings.classes["1"]
    assert atrium.mean == pytest.approx(1.4 / 3)
    assert (atrium.n, atrium.missed) == (3, 1)
    flip = findings.measures["flip_agreement"]
    assert flip.rank_correlation == pytest.approx(1.0)
    assert flip.points == [(0.6, 0.0), (0.7, 0.5), (0.95, 0.9)]
    # 1.4 / 3 for an agreement of 0.75 on average; the unlabelled cases have 0.85
    assert findings.expected == pytest.approx(1.4 / 3 + 0.1)
    assert "plane_agreement" not in findings.measures
    text = list(lines(findings))
    assert text[1] == f"  atrium: 0.467 (95 % interval {atrium.low:.3f} to {atrium.high:.3f}), 3 cases, not found in 1"
    assert text[-2:] == ["expected Dice in the 3 unlabelled cases: 0.57", verdict(1.4 / 3 + 0.1)]


def test_what_cannot_be_estimated_is_not() -> None:
    assert expected_dice([found("a", 0.9, None)], [{"flip_agreement": 0.8}]) is None
    assert expected_dice([found("a", 0.9, 0.9)], []) is None
    assert expected_dice([found("a", 0.9, 0.5)], [{"flip_agreement": 0.9}]) == 1.0
    with pytest.raises(ValueError, match="has any foreground"):
        summarise([found("a", None, None)], {"1": "atrium"})


@pytest.mark.parametrize(
    ("dice", "words"), [(0.75, "is likely to help"), (0.65, "may help"), (0.4, "is unlikely to help")]
)
def test_the_verdict_is_one_line(dice: float, words: str) -> None:
    assert words in verdict(dice)
    assert f"{dice:.2f}" in verdict(dice)
    assert "\n" not in verdict(dice)


def test_settings_of_one_plane_keep_the_folds(project: SFRDataset) -> None:
    """A SAM for each axis is left the same cases out."""
    dataset = with_crosscheck_folds(project)
    stitching = replace(project.settings.stitching, slice_axes=(0, 1))
    with mock.patch.object(SFRDataset, "settings", replace(project.settings, stitching=stitching)):
        first, second = dataset.planes
    assert first.splits == second.splits == dataset.splits
    assert second.paths.sam_stage(0) == dataset.paths.crosschecks / "fold_0" / "across_1" / "round_0"
