"""Folds of a data set: asked without a trace, and written once where a training needs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError

CASES = [f"train_{index:02d}" for index in range(7)]


@pytest.fixture
def seven_cases(project: SFRDataset) -> SFRDataset:
    """Seven preprocessed labelled cases, of which those that the project does not have are copies of the first."""
    for identifier in CASES:
        copy_first_case(project, identifier)
    return project


def copy_first_case(project: SFRDataset, identifier: str) -> None:
    folder = project.paths.labelled
    for ending in (".pkl", ".b2nd", "_seg.b2nd"):
        if not (folder / f"{identifier}{ending}").exists():
            shutil.copy(folder / f"{CASES[0]}{ending}", folder / f"{identifier}{ending}")


def splits_file(dataset: SFRDataset) -> Path:
    return dataset.paths.preprocessed / "splits_final.json"


def test_a_split_is_asked_for_and_not_written(seven_cases: SFRDataset) -> None:
    expected = generate_crossval_split(CASES, seed=12345, n_splits=5)
    for fold in range(5):
        assert seven_cases.split(fold) == (list(expected[fold]["train"]), list(expected[fold]["val"]))
    assert seven_cases.split("all") == (CASES, CASES)
    assert not splits_file(seven_cases).exists()


def test_a_written_split_is_what_was_asked_for_and_stays(seven_cases: SFRDataset) -> None:
    before = [seven_cases.split(fold) for fold in range(5)]
    seven_cases.write_split("all")
    assert not splits_file(seven_cases).exists()
    seven_cases.write_split(3)
    written = json.loads(splits_file(seven_cases).read_text(encoding="utf-8"))
    assert [(split["train"], split["val"]) for split in written] == before
    copy_first_case(seven_cases, "train_99")
    seven_cases.write_split(3)
    assert json.loads(splits_file(seven_cases).read_text(encoding="utf-8")) == written
    assert [seven_cases.split(fold) for fold in range(5)] == before


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_fold_without_cases_is_refused(project: SFRDataset, part: str) -> None:
    """nnU-Net's loaders end in a traceback, and SAM would have no case to be judged by."""
    split = {"train": ["train_00", "train_01"], "val": ["train_02"], part: []}
    splits_file(project).write_text(json.dumps([split]), encoding="utf-8")
    with pytest.raises(UserError, match=rf"splits_final.json: fold 0 has no case under {part}; .* use -f all$"):
        project.split(0)


def test_a_fold_that_cannot_exist_is_refused_and_nothing_written(project: SFRDataset) -> None:
    for ask in (project.split, project.write_split):
        with pytest.raises(UserError, match="needs 5 labelled cases and there are 3"):
            ask(1)
    assert not splits_file(project).exists()
