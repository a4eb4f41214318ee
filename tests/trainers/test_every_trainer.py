"""Every trainer on everything that nnU-Net plans: a few steps, killed and resumed, and read back by nnU-Net itself."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS, find_trainer
from nnunet_sfr.trainers.methods import METHODS
from tests.stopped_runs import require_same_training, resume, train_until_killed, weights
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, build_trainer, change_settings, fill_store, make_project, nnunet_folders
from tests.trainers.later_rounds import finish_the_round_before
from tests.variants import LOW_RESOLUTION, VARIANTS

KINDS = {**VARIANTS, "3d lowres": LOW_RESOLUTION}
OpenVariant = Callable[[str], SFRDataset]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a planned project with pseudo-labels, made once for each kind of data set."""
    made: dict[str, Path] = {}

    def root(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("variant")
            with nnunet_folders(made[variant]):
                fill_store(make_project(made[variant], **KINDS[variant]))
        return made[variant]

    return root


@pytest.fixture
def open_variant(roots: Callable[[str], Path], tmp_path: Path) -> Iterator[OpenVariant]:
    """A copy of a project that a test may change, with nnU-Net's variables set to it."""
    with nnunet_folders(tmp_path):

        def copy(variant: str) -> SFRDataset:
            shutil.copytree(roots(variant), tmp_path, dirs_exist_ok=True)
            return open_dataset(NAME, KINDS[variant].get("configuration", "3d_fullres"), PLANS)

        yield copy


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *itertools.product(TRAINERS, VARIANTS),
        ("nnUNetTrainerSFR_MagicNet", "3d lowres"),
        *((name, "3d") for name in ROUND_TRAINERS),
        ("nnUNetTrainerSFRPlus_MT", "2d"),
        ("nnUNetTrainerSFRPlus_MT", "regions"),
        ("nnUNetTrainerSFRPlus_MT", "ignore label"),
    ],
    ids=lambda value: value.replace(" ", "_"),
)
def test_a_few_steps_on_every_kind_of_data_set(name: str, variant: str, open_variant: OpenVariant) -> None:
    dataset = open_variant(variant)
    finish_the_round_before(dataset, name)
    # self-training needs two epochs, one on each side of its labelling
    epochs = 2 if variant == "3d" or name.endswith("_ST") else 1
    change_settings(dataset, {"retraining": {"epochs": epochs}, "rounds": {"retraining_fraction": 1.0}})
    trainer = build_trainer(dataset, name)
    trainer.initialize()
    start = weights(trainer.student)
    trainer.run_training()

    log = trainer.logger.local_logger.my_fantastic_logging
    for term in (*trainer.logged_terms, "train_losses", "val_losses"):
        assert len(log[term]) == epochs
        assert np.isfinite(log[term]).all(), term
    assert len(set(log["supervised_loss"])) == epochs
    if "pseudo_label_loss" in trainer.logged_terms:
        assert log["pseudo_label_loss"][-1] != 0
    if "consistency_loss" in trainer.logged_terms:
        assert log["consistency_loss"][0] != 0
    student, teacher = weights(trainer.student), weights(trainer.teacher)
    assert not torch.equal(student, start)
    assert not torch.equal(teacher, start)
    assert not torch.equal(teacher, student)
    assert torch.isfinite(student).all()

    stock = build_trainer(dataset, "nnUNetTrainer")
    for file, expected in (("checkpoint_final.pth", trainer.student), ("checkpoint_teacher.pth", trainer.teacher)):
        checkpoint = torch.load(Path(trainer.output_folder, file), weights_only=False)
        assert set(checkpoint["network_weights"]) == set(expected.state_dict())
        if file == "checkpoint_final.pth":
            stock.load_checkpoint(str(Path(trainer.output_folder, file)))
            stock.set_deep_supervision_enabled(False)
            trainer.set_deep_supervision_enabled(False)
            image = torch.randn(1, dataset.num_input_channels, *trainer.configuration_manager.patch_size)
            with torch.no_grad():
                assert torch.equal(stock.network.eval()(image), trainer.student.eval()(image))


@pytest.mark.parametrize("name", [*TRAINERS, *ROUND_TRAINERS])
def test_killed_and_resumed_equals_uninterrupted(name: str, open_variant: OpenVariant) -> None:
    dataset = open_variant("3d")
    finish_the_round_before(dataset, name)
    before = 4 if name in ROUND_TRAINERS else 0
    # self-training labels the pool before the second and before the third epoch
    change_settings(
        dataset,
        {
            "retraining": {"epochs": 4, "st": {"relabel_at": [0.25, 0.5]}, "magicnet": {"statistics_window": 3}},
            "rounds": {"retraining_fraction": 1.0},
        },
    )
    undisturbed = build_trainer(dataset, name)
    undisturbed.run_training()
    shutil.rmtree(undisturbed.output_folder)

    train_until_killed(build_trainer(dataset, name), epoch=2)
    if name in ROUND_TRAINERS:  # everything is in the round's own checkpoint
        [previous] = dataset.paths.results.glob("nnUNetTrainerSFR_*")
        shutil.rmtree(previous)
    resumed = resume(lambda: build_trainer(dataset, name))
    assert resumed.current_epoch == 2
    assert resumed.iteration == before + 4
    resumed.run_training()
    require_same_training(resumed, undisturbed)


def test_the_trainers_are_the_methods_with_and_without_pseudo_labels_and_in_rounds() -> None:
    assert {"MT", "ACMT", "MagicNet", "ST", "UAMT", "BCP"} <= METHODS.keys()
    assert set(TRAINERS) == {
        f"{prefix}_{method}" for prefix in ("nnUNetTrainer", "nnUNetTrainerSFR") for method in METHODS
    }
    assert set(ROUND_TRAINERS) == {f"nnUNetTrainerSFRPlus_{method}" for method in METHODS}
    for name in (*TRAINERS, *ROUND_TRAINERS):
        trainer: Any = find_trainer(name)
        assert trainer.__name__ == name
        assert trainer.uses_pseudo_labels == ("SFR" in name)
        assert trainer.__doc__
