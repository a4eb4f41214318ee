"""SAMs that are small enough to run in milliseconds, with every part of the large ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage.sam import build_sam
from tests.sam_stage.small_models import SMALL_PRETRAINED, SMALL_VIT, with_published_names
from tests.tiny_project import change_settings


@pytest.fixture(scope="session")
def small() -> SAMModel:
    return SMALL_VIT


@pytest.fixture
def pretrained_project(project: SFRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SFRDataset:
    """The tiny project planned for a small TinyViT with weights in a file; its mask decoder alone is trained."""
    monkeypatch.setitem(cast(dict[str, SAMModel], MODELS), SMALL_PRETRAINED.name, SMALL_PRETRAINED)
    torch.manual_seed(10)
    published = build_sam(SMALL_PRETRAINED, input_size=64, in_channels=3, num_classes=4)
    file = tmp_path / "small_pretrained.pth"
    torch.save(with_published_names(published.state_dict()), file)
    sam = {"model": SMALL_PRETRAINED.name, "checkpoint": str(file), "adaptation": "decoder"}
    change_settings(project, {"sam": sam, "fine_tuning": {"views": 3}})
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)
