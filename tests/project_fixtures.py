"""Fixtures: one tiny project with pseudo-labels, made once and copied for each test, and trainers on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.trainers import find_trainer
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, fill_store, make_project, nnunet_folders

TrainerFactory = Callable[..., Any]


@pytest.fixture(scope="session")
def planned_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned project on disk, made once."""
    root = tmp_path_factory.mktemp("planned")
    with nnunet_folders(root):
        fill_store(make_project(root))
    return root


@pytest.fixture
def project(planned_root: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    """A copy of the project that a test may change, with nnU-Net's variables set to it."""
    shutil.copytree(planned_root, tmp_path, dirs_exist_ok=True)
    with nnunet_folders(tmp_path):
        yield open_dataset(NAME, "3d_fullres", PLANS)


@pytest.fixture
def make_trainer(project: SFRDataset) -> TrainerFactory:
    """Build a trainer by name, as nnUNetv2_train does."""

    def make(name: str = "nnUNetTrainerSFR_MT", fold: int | str = "all") -> Any:
        plans = json.loads(project.paths.plans_file.read_text())
        plans["continue_training"] = False
        dataset_json = json.loads((project.paths.preprocessed / "dataset.json").read_text())
        trainer_class: Any = nnUNetTrainer if name == "nnUNetTrainer" else find_trainer(name)
        return trainer_class(plans, project.paths.configuration, fold, dataset_json, torch.device("cpu"))

    return make
