"""Folds that there can be with the labels that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.folds import check_folds, check_split
from nnunet_sfr.errors import UserError
from nnunet_sfr.folds import split_of_fold
from nnunet_sfr.paths import DatasetPaths
from tests.tiny_project import nnunet_folders

PATHS = DatasetPaths("Dataset042_Tiny")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> Iterator[None]:
    with nnunet_folders(tmp_path):
        yield


@pytest.mark.parametrize("root", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_splits_of_the_users_own(root: str, tmp_path: Path) -> None:
    """Any number of folds, of any number of labelled cases; nnU-Net copies those of the raw data."""
    file = tmp_path / root / PATHS.dataset_name / "splits_final.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 7))
    (finding,) = check_folds(PATHS, 6, 2)
    assert (finding.level.value, finding.text) == ("ok", "7 in splits_final.json, and all")
    assert check_folds(PATHS, "all", 2) == [finding]
    with pytest.raises(UserError, match=r"splits_final\.json: has no fold 7; use 0 to 6, or all"):
        check_folds(PATHS, 7, 20)
    file.write_text("[]")
    with pytest.raises(UserError, match="has no fold 0"):
        check_folds(PATHS, 0, 20)


@pytest.mark.parametrize(("count", "choice"), [(0, "all"), (1, "0 or all"), (3, "0 to 2, or all")])
def test_the_message_names_the_folds_that_there_are(count: int, choice: str) -> None:
    splits = [{"train": ["a"], "val": [str(number)]} for number in range(count)]
    with pytest.raises(UserError, match=f"has no fold {count}; use {choice}$"):
        split_of_fold(Path("splits_final.json"), splits, count)
    assert [split_of_fold(Path("splits_final.json"), splits, fold) for fold in range(count)] == splits


def test_five_labels_allow_every_fold() -> None:
    for fold in ("all", 0, 4):
        (finding,) = check_folds(PATHS, fold, 5)
        assert (finding.level.value, finding.text) == ("ok", "0 to 4, and all")


def test_fewer_than_five_labels() -> None:
    (finding,) = check_folds(PATHS, "all", 4)
    assert finding.level.value == "note"
    assert finding.text.startswith("all alone: 4 labelled cases")
    with pytest.raises(UserError, match="needs 5 labelled cases and there are 4"):
        check_folds(PATHS, 2, 4)


def test_a_fold_that_nnunet_does_not_know() -> None:
    with pytest.raises(UserError, match="fold 7 does not exist"):
        check_folds(PATHS, 7, 20)


def test_a_split_is_read_and_never_made(project: SFRDataset) -> None:
    file = project.paths.preprocessed / "splits_final.json"
    assert check_split(project, 0) == []
    assert not file.exists()
    split = {"train": ["train_00", "train_01"], "val": ["train_02"]}
    file.write_text(json.dumps([split]))
    (finding,) = check_split(project, 0)
    assert "2 to train and 1 to validate on" in finding.text
    assert check_split(project, "all") == []
    with pytest.raises(UserError, match="has no fold 1; use 0 or all"):
        check_split(project, 1)
    file.write_text(json.dumps([{"train": ["gone"], "val": ["train_02"]}]))
    with pytest.raises(UserError, match="names gone"):
        check_split(project, 0)
