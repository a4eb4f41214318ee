"""The whole path on every kind of data set that the README promises: 2D, several channels, regions, ignore label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.pseudo_labelling import pseudo_label
from tests.tiny_project import build_trainer, make_project, nnunet_folders
from tests.variants import VARIANTS

CPU = torch.device("cpu")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda name: name.replace(" ", "_"))
def test_the_whole_path(variant: str, tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, **VARIANTS[variant])
        fine_tune(dataset, "all", CPU)
        store = pseudo_label(dataset, "all", CPU, adapter=FINAL_ADAPTER)
        check_store(store, dataset)
        trainer = train_one_epoch(dataset)
        check_trainer(trainer, dataset)


def check_store(store: PseudoLabelStore, dataset: SFRDataset) -> None:
    assert store.identifiers() == ["unlabelled_00", "unlabelled_01"]
    allowed = {-1, *range(dataset.num_classes)}
    for identifier in store.identifiers():
        assert set(np.unique(store.read_labels(identifier))) <= allowed


def train_one_epoch(dataset: SFRDataset) -> Any:
    trainer = build_trainer(dataset, "nnUNetTrainerSFR_MT_1epochs")
    trainer.run_training()
    return trainer


def check_trainer(trainer: Any, dataset: SFRDataset) -> None:
    for term in ("supervised_loss", "pseudo_label_loss", "consistency_loss"):
        assert np.isfinite(trainer.logger.get_value(term, step=-1))
    student = torch.nn.utils.parameters_to_vector(trainer.student.parameters())
    teacher = torch.nn.utils.parameters_to_vector(trainer.teacher.parameters())
    assert not torch.equal(student, teacher)
    batch = next(trainer.dataloader_train)["unlabelled"]
    patch = list(trainer.configuration_manager.patch_size)
    assert list(batch["data"].shape) == [trainer.batch_size, dataset.num_input_channels, *patch]
