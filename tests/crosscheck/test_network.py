"""nnU-Net's short training without the cases of a fold: interrupted, continued, and asked for labels."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

from nnunet_sfr.crosscheck import network
from nnunet_sfr.crosscheck.folds import with_crosscheck_folds
from nnunet_sfr.crosscheck.left_out import label_left_out
from nnunet_sfr.crosscheck.network import LeftOutTrainer, schedule, train_network, trained_checkpoint
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import LATEST_CHECKPOINT
from tests.crosscheck.test_crosscheck import pretended_sam
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, change_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("iterations", "expected"), [(1, (1, 1)), (7, (7, 1)), (20, (20, 1)), (23, (12, 2)), (1000, (20, 50))]
)
def test_epochs_of_a_short_training(iterations: int, expected: tuple[int, int]) -> None:
    assert schedule(iterations) == expected


def short(project: SFRDataset, iterations: int) -> SFRDataset:
    change_settings(project, {"crosscheck": {"nnunet_iterations": iterations}})
    return with_crosscheck_folds(open_dataset(NAME, "3d_fullres", PLANS))


def steps_of(dataset: SFRDataset, *, overwrite: bool = False) -> int:
    """Optimiser steps that a call takes."""
    step = LeftOutTrainer.train_step
    with mock.patch.object(LeftOutTrainer, "train_step", autospec=True, side_effect=step) as steps:
        train_network(dataset, 0, CPU, overwrite=overwrite)
    return steps.call_count


def test_a_training_is_continued_kept_and_replaced(project: SFRDataset, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = short(project, 2)
    started = LeftOutTrainer.on_train_epoch_start

    def stop_in_the_second(trainer: LeftOutTrainer) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        started(trainer)

    with (
        mock.patch.object(LeftOutTrainer, "on_train_epoch_start", stop_in_the_second),
        pytest.raises(KeyboardInterrupt),
    ):
        train_network(dataset, 0, CPU, overwrite=False)
    assert trained_checkpoint(dataset, 0) is None
    latest = next(dataset.paths.left_out_network(0).rglob(LATEST_CHECKPOINT))
    content = latest.read_bytes()
    latest.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{LATEST_CHECKPOINT}: cannot be read .*; delete it and run the same command"):
        train_network(dataset, 0, CPU, overwrite=False)
    latest.write_bytes(content)
    assert steps_of(dataset) == 1, "the first epoch is there"
    checkpoint = trained_checkpoint(dataset, 0)
    assert checkpoint is not None
    assert steps_of(dataset) == 0
    assert not project.paths.splits_file.exists()
    assert [folder.name for folder in project.paths.results.iterdir()] == [project.paths.crosschecks.name]
    assert not list(project.paths.crosschecks.rglob("checkpoint_best.pth")), "nothing is chosen by the cases left out"
    assert "Epoch 0" not in capsys.readouterr().out

    with pretended_sam():
        found = label_left_out(dataset, 0, CPU, with_nnunet=False, overwrite=False)
    left_out = dataset.split(0)[1]
    assert {source: [case.identifier for case in cases] for source, cases in found.items()} == dict.fromkeys(
        (SAM, NNUNET, MEAN), left_out
    )
    record = found[NNUNET][0].record
    assert record["sam_agreement"] is not None
    assert record["flip_agreement"] is not None

    # of other settings it does not count, and stays until there is a new one
    other = short(project, 1)
    assert trained_checkpoint(other, 0) is None
    with (
        mock.patch.object(network, "_train", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        train_network(other, 0, CPU, overwrite=False)
    assert trained_checkpoint(dataset, 0) == checkpoint
    assert steps_of(other) == 1
    assert trained_checkpoint(other, 0) == checkpoint
    assert trained_checkpoint(dataset, 0) is None


def test_nnunet_says_in_its_log_what_it_says(project: SFRDataset, tmp_path: Path) -> None:
    trainer = network._build(short(project, 5), 1, CPU, tmp_path)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (5, 1)
    training, left_out = trainer.do_split()
    assert sorted([*training, *left_out]) == project.labelled_identifiers()
    assert Path(trainer.output_folder).relative_to(tmp_path).parts == (
        NAME,
        f"nnUNetTrainer__{PLANS}__3d_fullres",
        "fold_1",
    )
    assert "Please cite" in Path(trainer.log_file).read_text(encoding="utf-8")
