"""Fixtures: one tiny project with pseudo-labels, made once and copied for each test, and trainers on it.

nnU-Net is imported when a fixture is used: the process that only hands out tests to workers never needs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nnunet_sfr.dataset import SFRDataset

TrainerFactory = Callable[..., Any]


@pytest.fixture(scope="session")
def planned_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned project on disk, made once."""
    from tests.tiny_project import fill_store, make_project, nnunet_folders

    root = tmp_path_factory.mktemp("planned")
    with nnunet_folders(root):
        fill_store(make_project(root))
    return root


@pytest.fixture
def project(planned_root: Path, tmp_path: Path) -> Iterator[SFRDataset]:
    """A copy of the project that a test may change, with nnU-Net's variables set to it."""
    from tests.tiny_project import project_copy

    with project_copy(planned_root, tmp_path) as dataset:
        yield dataset


@pytest.fixture
def planned(project: SFRDataset) -> SFRDataset:
    """A planned project with nothing trained and nothing labelled."""
    shutil.rmtree(project.paths.preprocessed / "pseudo_labels")
    return project


@pytest.fixture
def make_trainer(project: SFRDataset) -> TrainerFactory:
    """Build a trainer by name, as nnUNetv2_train does."""
    from tests.tiny_project import build_trainer

    def make(name: str = "nnUNetTrainerSFR_MT", fold: int | str = "all") -> Any:
        return build_trainer(project, name, fold)

    return make
