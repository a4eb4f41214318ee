"""Trained nnU-Net models for tests: true ones with random weights, and one whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_sfr.dataset import SFRDataset
from tests.tiny_project import build_trainer

CHECKPOINT = "checkpoint_final.pth"
CPU = torch.device("cpu")


class Thresholding(torch.nn.Module):
    """A network that looks at each voxel of the last channel alone: foreground above 1, nested classes higher up."""

    def __init__(self, heads: int = 2, *, regions: bool = False) -> None:
        super().__init__()
        self.heads, self.regions = heads, regions

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        image = patches[:, -1:]
        if self.regions:
            return torch.cat([8 * (image - 1 - 0.5 * region) for region in range(self.heads)], dim=1)
        return torch.cat([8 * (image - 1) * label for label in range(self.heads)], dim=1)


def random_model(
    dataset: SFRDataset, *folds: int | str, seed: int = 0, mirror_axes: tuple[int, ...] | None = None
) -> Path:
    """The folder of an untrained model of the data set's own plan, written by nnU-Net's trainer.

    nnU-Net's training chooses ``mirror_axes`` when it opens its loaders; a model without training has none.
    """
    for fold in folds or ("all",):
        torch.manual_seed(seed)
        seed += 1
        trainer = build_trainer(dataset, "nnUNetTrainer", fold)
        trainer.initialize()
        trainer.inference_allowed_mirroring_axes = mirror_axes
        trainer.save_checkpoint(str(Path(trainer.output_folder, CHECKPOINT)))
    folder = Path(trainer.output_folder_base)
    _write_plans(folder, trainer.plans_manager.plans, dict(dataset.dataset_json))
    return folder


def threshold_model(
    folder: Path, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str = "3d_fullres"
) -> Path:
    """A model folder of any plan; :func:`thresholding` has to be active when it is used."""
    (folder / "fold_0").mkdir(parents=True)
    checkpoint = {
        "network_weights": {},
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_0" / CHECKPOINT)
    _write_plans(folder, plans, dataset_json)
    return folder


@contextmanager
def thresholding(heads: int = 2, *, regions: bool = False) -> Iterator[None]:
    """Let nnU-Net build :class:`Thresholding` for every network it is asked for."""

    def build(plans_manager: Any, *arguments: Any, **options: Any) -> torch.nn.Module:
        return Thresholding(heads, regions=regions)

    with mock.patch.object(nnUNetTrainer, "build_network_architecture", staticmethod(build)):
        yield


def _write_plans(folder: Path, plans: dict[str, Any], dataset_json: dict[str, Any]) -> None:
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
