"""SAMs that are small enough to run in milliseconds, with every part of the large ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage.sam import build_sam
from tests.sam_stage.small_models import SMALL_PRETRAINED, SMALL_VIT, with_published_names
from tests.tiny_project import change_settings, make_project, nnunet_folders, project_copy


@pytest.fixture(scope="session")
def small() -> SAMModel:
    return SMALL_VIT


@pytest.fixture
def pretrained_project(project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SFRDataset:
    """The tiny project planned for a small TinyViT with weights in a file; its mask decoder alone is trained."""
    return with_pretrained(project, tmp_path / "small_pretrained.pth", monkeypatch, "decoder")


@pytest.fixture(scope="session")
def two_channels_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned project of two channels on disk, made once."""
    root = tmp_path_factory.mktemp("two_channels")
    with nnunet_folders(root):
        make_project(root, channels=2, labelled=2, unlabelled=2)
    return root


@pytest.fixture
def two_channels(two_channels_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SFRDataset]:
    """A project of two channels, whose small TinyViT has a first layer of its own and few_shot's prompts."""
    with project_copy(two_channels_root, tmp_path) as project:
        change_settings(project, {"fine_tuning": {"iterations": 2, "validation_every": 1, "max_validation_cases": 1}})
        yield with_pretrained(project, tmp_path / "small_pretrained.pth", monkeypatch, "few_shot")


def with_pretrained(project: SFRDataset, file: Path, monkeypatch: pytest.MonkeyPatch, adaptation: str) -> SFRDataset:
    """The project planned for a small TinyViT, whose weights are written to a file."""
    monkeypatch.setitem(cast(dict[str, SAMModel], MODELS), SMALL_PRETRAINED.name, SMALL_PRETRAINED)
    torch.manual_seed(10)
    published = build_sam(SMALL_PRETRAINED, input_size=64, in_channels=3, num_classes=4)
    torch.save(with_published_names(published.state_dict()), file)
    sam = {"model": SMALL_PRETRAINED.name, "checkpoint": str(file), "adaptation": adaptation}
    change_settings(project, {"sam": sam, "fine_tuning": {"views": 3}})
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)
