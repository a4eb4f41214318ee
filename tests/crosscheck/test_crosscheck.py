"""Cases that are left out, and what they say about the labels of the unlabelled ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_sfr.atomic import write_json
from nnunet_sfr.crosscheck import left_out
from nnunet_sfr.crosscheck.findings import SHAPE, CalibrationPoint, expected_dice_of_unlabelled, findings_of
from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.crosscheck.left_out import mean_labels
from nnunet_sfr.crosscheck.printing import lines
from nnunet_sfr.crosscheck.run import _records_of_unlabelled, crosscheck
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM, LeftOutCase
from nnunet_sfr.crosscheck.verdict import verdict_of_sam
from nnunet_sfr.data.labels_of_sam import sam_labels_folder
from nnunet_sfr.data.preprocessed_files import image_hash, read_properties
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.store_files import case_files
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.label_decision import EXPECTED_DICE, LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import LoadedCase, Prediction
from nnunet_sfr.paths import FINAL_ADAPTER, FINAL_CHECKPOINT, PLANS_JSON, Fold
from nnunet_sfr.pipeline.project import Project
from tests.pipeline.fake_commands import run_options
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, change_settings

CPU = torch.device("cpu")
TABLE_END = ["cases", "not found by SAM"]


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
    """Predicts the true labels of a case, but only in half of the slices.

    Args:
        dataset: of the case.
        first: whether in the first half.
        foreground: probability of what it calls foreground.
        background: probability of the rest.
    """

    regions: ClassVar[bool] = False
    average: ClassVar[bool] = False
    decision: ClassVar[str] = LARGEST_PROBABILITY

    def __init__(self, dataset: SFRDataset, *, first: bool = True, foreground: float = 0.9, background: float = 0.6):
        self.folder = str(dataset.paths.labelled)
        self.first, self.foreground, self.background = first, foreground, background

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        found = infer_dataset_class(self.folder)(self.folder, [case.identifier]).load_case(case.identifier)[1][0] == 1
        half = found.shape[0] // 2
        found[half:] &= not self.first
        found[:half] &= self.first
        foreground = torch.from_numpy(np.where(found, self.foreground, 1 - self.background)).float()
        yield Prediction(torch.stack([1 - foreground, foreground]))
        if mirrored:
            yield Prediction(torch.stack([1 - foreground, foreground]), mirrored=True)


def write_adapter(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
    folder = dataset.paths.sam_stage(fold)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FINAL_ADAPTER).write_text(f"of fold {fold}")
    return folder


def write_network(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
    folder = dataset.paths.left_out_network(fold) / "model" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (folder / FINAL_CHECKPOINT, folder.parent / PLANS_JSON):
        file.write_text(f"of fold {fold}")
    return folder / FINAL_CHECKPOINT


@contextmanager
def pretended_sam(fine_tune: Callable[..., Path] = write_adapter) -> Iterator[tuple[mock.Mock, mock.Mock]]:
    """A SAM that labels the first half of each case as it is; the calls of its fine-tuning and of its making."""
    with (
        mock.patch.object(left_out, "fine_tune", side_effect=fine_tune) as tuned,
        mock.patch.object(
            left_out, "sam_labeller", side_effect=lambda dataset, *_, **__: HalfOfTheTruth(dataset)
        ) as sam,
    ):
        yield tuned, sam


@contextmanager
def pretended_network() -> Iterator[mock.Mock]:
    """A network that labels the second half of each case as it is, surer of the foreground than SAM."""

    def labeller(dataset: SFRDataset, *_: Any) -> HalfOfTheTruth:
        return HalfOfTheTruth(dataset, first=False, foreground=0.95, background=0.7)

    with (
        mock.patch.object(left_out, "train_network", side_effect=write_network) as trained,
        mock.patch.object(left_out, "network_labeller", side_effect=labeller),
    ):
        yield trained


def dice_of_halves(dataset: SFRDataset) -> dict[str, tuple[float, float]]:
    """Dice of the first and of the second half of every labelled case with the whole."""
    cases = infer_dataset_class(str(dataset.paths.labelled))(str(dataset.paths.labelled))
    dices = {}
    for identifier in cases.identifiers:
        truth = cases.load_case(identifier)[1][0] == 1
        first = truth[: truth.shape[0] // 2].sum()
        second = truth.sum() - first
        dices[identifier] = (2 * first / (first + truth.sum()), 2 * second / (second + truth.sum()))
    return dices


def test_dice_is_that_of_the_cases_left_out(project: SFRDataset) -> None:
    with pretended_sam() as (fine_tune, sam):
        findings = crosscheck(project, CPU)
        again = crosscheck(project, CPU)
    assert fine_tune.call_count == 2 * findings.folds
    assert sam.call_count == findings.folds, "what is labelled is not labelled again"
    assert again == findings
    assert not project.paths.splits_file.exists()

    expected = {case: first for case, (first, _) in dice_of_halves(project).items()}
    assert {case.case: case.dice for case in findings.sam.cases} == pytest.approx(expected)
    assert findings.sam.dice.mean == pytest.approx(np.mean(list(expected.values())))
    assert list(findings.sources) == [SAM]
    assert findings.differences == []
    written = read_json(project.paths.crosscheck_result, "", SHAPE)
    assert written["sources"][SAM]["dice"]["mean"] == findings.sam.dice.mean
    # the store of the tiny project was filled by a threshold, of which SAM's Dice says nothing
    assert (written["expected"], written["num_unlabelled"]) == (None, 0)
    assert written["verdict"].endswith("is not known (--with-nnunet measures it)")
    hashes = {case: image_hash(read_properties(project.paths.labelled, case)) for case in expected}
    assert written["labelled_cases"] == hashes, "by which the report sees that there are others"


def test_nnunet_beside_sam(project: SFRDataset) -> None:
    change_settings(project, {"pseudo_labels": {"decision": LARGEST_PROBABILITY}})
    project = open_dataset(NAME, "3d_fullres", PLANS)
    with pretended_sam(), pretended_network() as trained:
        findings = crosscheck(project, CPU, with_nnunet=True)
    assert trained.call_count == findings.folds
    halves = dice_of_halves(project)
    of_network = findings.sources[NNUNET]
    assert {case.case: case.dice for case in of_network.cases} == pytest.approx({c: d for c, (_, d) in halves.items()})
    # SAM is surer than the network in the first half of the foreground, the network in the second
    assert [case.dice for case in findings.sources[MEAN].cases] == [1.0] * len(halves)
    [minus_network, over_sam, over_network] = findings.differences
    assert (minus_network.source, minus_network.other, minus_network.dice.n) == (SAM, NNUNET, len(halves))
    assert minus_network.dice.mean == pytest.approx(np.mean([first - second for first, second in halves.values()]))
    assert minus_network.classes["1"] == minus_network.dice, "of one class the mean is that of the class"
    assert over_sam.dice.mean == pytest.approx(1 - np.mean([first for first, _ in halves.values()]))
    assert over_network.dice.mean == pytest.approx(1 - np.mean([second for _, second in halves.values()]))
    # half of the truth and the other half have nothing in common
    assert {point.confidence for point in of_network.measures["sam_agreement"].points} == {0.0}
    assert findings.nnunet_iterations == 1000
    assert findings.verdict.startswith("SFR may help: labels by the mean of SAM and nnU-Net (Dice 1.00) are better")
    read_json(project.paths.crosscheck_result, "", SHAPE)


def test_another_adapter_is_asked_again(project: SFRDataset) -> None:
    def write_another(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> Path:
        folder = write_adapter(dataset, fold, device, overwrite=overwrite)
        (folder / FINAL_ADAPTER).write_text("another")
        return folder

    with pretended_sam() as (_, sam):
        folds = crosscheck(project, CPU).folds
    assert sam.call_count == folds
    with pretended_sam(write_another) as (_, sam):
        crosscheck(project, CPU)
    assert sam.call_count == folds


def test_the_mean_is_that_of_the_probabilities(project: SFRDataset, tmp_path: Path) -> None:
    def store(name: str, labels: list[int], certainty: list[float]) -> PseudoLabelStore:
        made = PseudoLabelStore.create(tmp_path / name, grid=project.grid, made_by=Provenance(source=name))
        made.write(
            "case",
            np.array(labels, np.int8).reshape(1, 1, 1, -1),
            {},
            label_manager=project.label_manager,
            patch_size=(1, 1, len(labels)),
            voxel_confidence=np.array(certainty, np.float32).reshape(1, 1, -1),
        )
        return made

    # numbers that a byte keeps; of three classes, the two that are not the label share the rest
    sam, network = store("sam", [0, 1, 2], [0.6, 0.4, 1.0]), store("network", [1, 1, 0], [0.8, 0.6, 0.6])
    labels = mean_labels(sam, network, "case", num_classes=3, decision=LARGEST_PROBABILITY)
    assert labels.flatten().tolist() == [1, 1, 2]
    # a foreground of 0.3 is less than background, but its best chance of a Dice
    sam, network = store("unsure", [1, 0], [0.4, 1.0]), store("surer", [0, 0], [0.8, 1.0])
    decided = {
        decision: mean_labels(sam, network, "case", num_classes=2, decision=decision).flatten().tolist()
        for decision in (LARGEST_PROBABILITY, EXPECTED_DICE)
    }
    assert decided == {LARGEST_PROBABILITY: [0, 0], EXPECTED_DICE: [1, 0]}


def test_numbers_of_the_summary() -> None:
    cases = [found("a", 0.9, 0.95), found("b", 0.5, 0.7, fold=1), found("c", 0.0, 0.6, fold=2), found("d", None, None)]
    records: list[dict[str, Any]] = [{"flip_agreement": 0.8}, {"flip_agreement": 0.9}, {"flip_agreement": None}]
    findings = findings_of({SAM: cases}, {"1": "atrium"}, records)
    assert findings.folds == 3
    assert [(case.case, case.dice, case.fold) for case in findings.sam.cases] == [
        ("c", 0.0, 2),
        ("b", 0.5, 1),
        ("a", 0.9, 0),
    ]
    dice = findings.sam.dice
    assert dice.mean == pytest.approx(1.4 / 3)
    assert dice.low is not None
    assert 0.0 <= dice.low < 1.4 / 3
    atrium = findings.sam.classes["1"]
    assert (atrium.dice, atrium.missed) == (dice, 1)
    flip = findings.sam.measures["flip_agreement"]
    assert flip.rank_correlation == pytest.approx(1.0)
    assert flip.points == [
        CalibrationPoint("c", 0.6, 0.0),
        CalibrationPoint("b", 0.7, 0.5),
        CalibrationPoint("a", 0.95, 0.9),
    ]
    # 1.4 / 3 for an agreement of 0.75 on average; the unlabelled cases have 0.85
    assert findings.expected == pytest.approx(1.4 / 3 + 0.1)
    assert "plane_agreement" not in findings.sam.measures
    text = list(lines(findings))
    assert text[0] == "Dice in 3 labelled cases, each left out once (mean, 95 % interval)"
    assert text[2].split() == ["atrium", "0.467", *f"({dice.low:.3f} to {dice.high:.3f}) 3 1".split()]
    assert "lowest of SAM: c 0.000, b 0.500, a 0.900" in text
    assert text[-2:] == ["expected Dice in the 3 unlabelled cases: 0.57", verdict_of_sam(1.4 / 3 + 0.1, 3)]


def test_differences_are_those_of_the_same_case() -> None:
    sam = [found("a", 0.9, 0.9), found("b", 0.5, 0.8), found("c", 0.4, 0.7)]
    network = [found("c", 0.3, 0.7), found("b", 0.6, 0.6), found("a", None, None)]
    findings = findings_of({SAM: sam, NNUNET: network, MEAN: network}, {"1": "atrium"}, nnunet_iterations=400)
    assert findings.sources[NNUNET].dice.mean == pytest.approx(0.45)
    assert findings.differences[0].dice.n == 2
    assert findings.differences[0].dice.mean == pytest.approx(0.0)
    text = list(lines(findings))
    assert re.split("  +", text[1].strip()) == ["SAM", "nnU-Net, 400 iterations", "mean of both", *TABLE_END]
    assert any(
        line.startswith("SAM minus nnU-Net, paired by case: ") and line.endswith("(-0.100 to 0.100)") for line in text
    )


def test_the_estimate_is_of_the_labels_that_there_are(project: SFRDataset) -> None:
    def records(fold: Fold, made_by: Provenance, *cases: str) -> None:
        store = PseudoLabelStore.create(project.paths.pseudo_labels(fold), grid=project.grid, made_by=made_by)
        for case in cases:
            for file in case_files(store.folder, case):
                write_json({"made_by": made_by.fingerprint, "case": case}, file)

    assert _records_of_unlabelled(project) == [], "those of fold all are by a threshold"
    records(0, Provenance.of_images(fold=0), "a")
    for fold in (10, 2):
        records(fold, Provenance(source="sam", fold=fold), f"of_fold_{fold}")
    assert [record["case"] for record in _records_of_unlabelled(project)] == ["of_fold_2"]
    shutil.rmtree(project.paths.pseudo_labels("all"))
    records("all", Provenance(source="sam", fold="all"), "of_all")
    assert [record["case"] for record in _records_of_unlabelled(project)] == ["of_all"]


def test_the_estimate_passes_over_labels_on_another_grid(project: SFRDataset) -> None:
    shutil.rmtree(project.paths.pseudo_labels("all"))
    made_by = Provenance(source="sam", fold=0)
    PseudoLabelStore.create(project.paths.pseudo_labels(0), grid={**project.grid, "spacing": [9]}, made_by=made_by)
    assert _records_of_unlabelled(project) == []
    of_today = project.paths.pseudo_labels(1)
    PseudoLabelStore.create(of_today, grid=project.grid, made_by=Provenance(source="sam", fold=1))
    for file in case_files(of_today, "a"):
        write_json({"made_by": Provenance(source="sam", fold=1).fingerprint, "case": "a"}, file)
    assert [record["case"] for record in _records_of_unlabelled(project)] == ["a"]
    run = Project(run_options(crosscheck=True, fold=1))
    assert sam_labels_folder(run.paths, run.label_grid()) == of_today, "sfr_run sees the same labels"


def test_why_the_unlabelled_cases_have_no_estimate() -> None:
    def said(records: list[dict[str, Any]]) -> str:
        return list(lines(findings_of({SAM: [found("a", 0.9, 0.9)]}, {"1": "atrium"}, records)))[-2]

    assert said([]).endswith("not estimated: run sfr_finetune and sfr_pseudolabel first")
    assert said([{"flip_agreement": None}]).endswith("was not measured (pseudo_labels.measure_flip_agreement)")


def test_what_cannot_be_estimated_is_not() -> None:
    assert expected_dice_of_unlabelled([found("a", 0.9, None)], [{"flip_agreement": 0.8}]) is None
    assert expected_dice_of_unlabelled([found("a", 0.9, 0.9)], []) is None
    assert expected_dice_of_unlabelled([found("a", 0.9, 0.5)], [{"flip_agreement": 0.9}]) == 1.0
    with pytest.raises(ValueError, match="has any foreground"):
        findings_of({SAM: [found("a", None, None)]}, {"1": "atrium"})


def test_settings_of_one_plane_keep_the_folds(project: SFRDataset) -> None:
    """A SAM for each axis is left the same cases out."""
    dataset = with_crosscheck_folds(project)
    stitching = replace(project.settings.stitching, slice_axes=(0, 1))
    with mock.patch.object(SFRDataset, "settings", replace(project.settings, stitching=stitching)):
        first, second = dataset.planes
    assert first.splits == second.splits == dataset.splits
    assert second.paths.sam_stage(0) == dataset.paths.crosschecks / "fold_0" / "across_1" / "round_0"
