"""The trainer on a tiny project: what a step does and what a checkpoint holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import FINAL_CHECKPOINT, TEACHER_CHECKPOINT, TRAINING_SETTINGS, VALIDATION, VALIDATION_SUMMARY
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.consistency import squared_difference
from nnunet_sfr.trainers.schedules import consistency_weight
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import weights
from tests.tiny_project import change_settings, fill_store


def test_one_step_descends_the_stated_loss(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """The two backward passes together give the gradient of L_sup + w_p L_pl + w(t) L_cons."""
    change_settings(
        project, {"retraining": {"pseudo_label_weight": 0.5, "consistency_weight": 3.0, "teacher_noise_std": 0.0}}
    )
    trainer = make_trainer()
    trainer.on_train_start()
    trainer.iteration = 2
    nn.utils.vector_to_parameters(weights(trainer.teacher) + 0.05, trainer.teacher.parameters())
    batch = next(trainer.dataloader_train)

    images, targets = batch["labelled"]["data"], batch["labelled"]["target"]
    supervised = trainer.loss(trainer.network(images), targets)
    outputs = trainer.network(batch["unlabelled"]["data"])
    pseudo = trainer.loss(outputs, batch["unlabelled"]["target"])
    consistency = squared_difference(outputs[0], trainer.teacher(batch["unlabelled"]["data"])).mean()
    weight = consistency_weight(2, total_iterations=4, maximum=3.0, ramp_up_fraction=1.0)
    expected_loss = supervised + 0.5 * pseudo + weight * consistency
    expected = torch.autograd.grad(expected_loss, list(trainer.network.parameters()), allow_unused=True)

    gradients: list[torch.Tensor | None] = []

    def record() -> None:
        gradients.extend(parameter.grad for parameter in trainer.network.parameters())

    trainer._optimizer_step = record
    result = trainer.train_step(batch)

    assert consistency.item() > 1e-4, "student and teacher must differ for this test to mean anything"
    assert result["loss"] == pytest.approx(expected_loss.item(), rel=1e-5)
    assert result["consistency_weight"] == pytest.approx(weight)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is not None and theirs.abs().max() > 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_student_and_teacher_move_and_the_teacher_lags(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    start = weights(trainer.student)
    trainer.train_step(next(trainer.dataloader_train))
    first = weights(trainer.student)
    # alpha is 0 at the first step: the teacher becomes the student
    assert torch.equal(weights(trainer.teacher), first)
    trainer.train_step(next(trainer.dataloader_train))
    second = weights(trainer.student)
    # alpha is 1/2 at the second step
    torch.testing.assert_close(weights(trainer.teacher), (first + second) / 2)
    assert not torch.equal(start, first)
    assert not torch.equal(first, second)


def test_both_streams_are_augmented_patches_of_their_own_cases(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer()
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    assert all(key.startswith("train_") for key in batch["labelled"]["keys"])
    assert all(key.startswith("unlabelled_") for key in batch["unlabelled"]["keys"])
    for stream in batch.values():
        assert stream["data"].shape == (2, 1, *trainer.configuration_manager.patch_size)
        assert stream["target"][0].shape == stream["data"].shape
        # foreground oversampling: the last patch of each batch shows the blob
        assert (stream["target"][0][-1] == 1).any()


@pytest.mark.draws
def test_what_a_finished_run_leaves(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainerSFR_MT_1epochs")
    trainer.run_training()
    folder = Path(trainer.output_folder)
    assert trainer.num_epochs == 1
    assert "nnUNetTrainerSFR_MT_1epochs" in str(folder)
    settings = json.loads((folder / "sfr_settings.json").read_text(encoding="utf-8"))
    assert settings["retraining"]["consistency_weight"] == 0.1
    assert settings["epochs"] == 1
    assert (folder / "progress_losses.png").stat().st_size > 10_000
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]

    final = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    teacher = torch.load(folder / TEACHER_CHECKPOINT, weights_only=False)
    assert CHECKPOINT_KEY not in teacher
    for name, value in final[CHECKPOINT_KEY]["teacher_weights"].items():
        assert torch.equal(teacher["network_weights"][name], value)


def test_a_finished_training_that_is_continued_keeps_its_model_and_the_record_of_what_it_learned(
    make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    """Labels and later rounds know the model by the hash of its file."""
    name = "nnUNetTrainerSFR_MT_1epochs"
    trainer = make_trainer(name)
    trainer.run_training()
    record = Path(trainer.output_folder, TRAINING_SETTINGS)
    before = record.read_text(encoding="utf-8")
    models = [Path(trainer.output_folder, name) for name in (FINAL_CHECKPOINT, TEACHER_CHECKPOINT)]
    hashes = [file_hash(model) for model in models]
    models[1].unlink()  # as a run leaves it that is killed before its very end
    change_settings(project, {"retraining": {"ema_decay": 0.5}})
    finished = make_trainer(name)
    finished.load_checkpoint(str(Path(trainer.output_folder, FINAL_CHECKPOINT)))
    finished.run_training()
    assert [file_hash(model) for model in models] == hashes
    assert record.read_text(encoding="utf-8") == before
    record.unlink()  # today's is better than none
    finished.on_train_start()
    assert json.loads(record.read_text(encoding="utf-8"))["retraining"]["ema_decay"] == 0.5


def test_a_checkpoint_has_the_same_bytes_whichever_process_writes_it(
    make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the process is in the temporary name."""
    trainer = make_trainer()
    trainer.on_train_start()
    file = Path(trainer.output_folder, FINAL_CHECKPOINT)
    hashes = set()
    for process in (11, 2222):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        trainer.save_checkpoint(str(file))
        hashes.add(file_hash(file))
    assert len(hashes) == 1


def test_the_checkpoint_loads_in_a_stock_trainer(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainerSFR_MT_1epochs")
    trainer.run_training()
    stock = make_trainer("nnUNetTrainer")
    stock.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    assert torch.equal(weights(stock.network), weights(trainer.student))
    assert type(stock.network) is type(trainer.student)


def test_the_validation_predicts_nothing_for_the_second_stage_of_a_cascade(
    make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    """nnU-Net's planner names that stage in 3d_lowres, whether it is preprocessed or not."""
    file = project.paths.plans_file
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["next_stage"] = "second_stage"
    plans["configurations"]["second_stage"] = {"inherits_from": "3d_fullres", "data_identifier": "not_preprocessed"}
    file.write_text(json.dumps(plans))
    trainer = make_trainer()
    trainer.initialize()

    def predict(_: nnUNetPredictor, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros((2, *image.shape[1:]))

    with mock.patch.object(nnUNetPredictor, "predict_sliding_window_return_logits", predict):
        trainer.perform_actual_validation()
    assert Path(trainer.output_folder, VALIDATION, VALIDATION_SUMMARY).is_file()
    assert not Path(trainer.output_folder_base, "predicted_next_stage").exists()
    assert trainer.plans_manager.plans == trainer.my_init_kwargs["plans"] == plans


def test_user_mistakes_end_with_one_line(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    with pytest.raises(
        SystemExit, match=r"error: fold 0 cannot exist: .* 5 labelled cases and there are 3; use -f all"
    ):
        make_trainer(fold=0).on_train_start()

    shutil.rmtree(project.paths.pseudo_labels("all"))
    with pytest.raises(SystemExit, match="there are no pseudo-labels; run sfr_pseudolabel first"):
        make_trainer().on_train_start()

    change_settings(project, {"retraining": {"ema_decay": 1.0}})
    with pytest.raises(SystemExit, match=r"retraining: ema_decay must lie in \[0, 1\), got 1.0"):
        make_trainer().on_train_start()


def test_labelled_cases_that_are_missing_or_damaged_end_with_one_line(
    make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    with (project.paths.labelled / "train_02.b2nd").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(SystemExit, match=r"error: .*train_02\.b2nd: damaged .* run sfr_plan_and_preprocess"):
        make_trainer().on_train_start()

    fill_store(project, 0)
    splits = [{"train": ["train_00", "taken_away"], "val": ["train_01"]}]
    project.paths.splits_file.write_text(json.dumps(splits))
    with pytest.raises(
        SystemExit, match=r"error: .*splits_final\.json: fold 0 names taken_away, which .*; take it out"
    ):
        make_trainer(fold=0).on_train_start()


def test_a_store_of_another_plan_is_refused(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    manifest_file = project.paths.pseudo_labels("all") / "manifest.json"
    manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    manifest["grid"]["spacing"] = [2.0, 2.0, 2.0]
    manifest_file.write_text(json.dumps(manifest))
    with pytest.raises(SystemExit, match=r"made for spacing \[2.0, 2.0, 2.0\], the plan has \[1.0, 1.0, 1.0\]"):
        make_trainer().on_train_start()


def test_a_method_without_pseudo_labels_needs_no_store(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    shutil.rmtree(project.paths.pseudo_labels("all"))
    trainer = make_trainer("nnUNetTrainer_MT_1epochs")
    trainer.run_training()
    assert trainer.logger.get_value("consistency_loss", step=-1) > 0.0
    assert "pseudo_label_loss" not in trainer.logger.local_logger.my_fantastic_logging


def test_worker_processes_draw_different_patches(make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_trainer()
    trainer.on_train_start()
    try:
        first, second = next(trainer.dataloader_train), next(trainer.dataloader_train)
        for stream in ("labelled", "unlabelled"):
            assert first[stream]["data"].shape == second[stream]["data"].shape
            assert not torch.equal(first[stream]["data"], second[stream]["data"])
    finally:
        trainer.dataloader_train.stop_workers()
        trainer.dataloader_val._finish()


def test_pseudo_labels_of_other_labels_or_images_are_refused(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    dataset_json = project.paths.preprocessed / "dataset.json"
    original = dataset_json.read_text(encoding="utf-8")
    dataset_json.write_text(original.replace('"class_1": 1', '"class_1": 1, "class_2": 2'))
    assert dataset_json.read_text(encoding="utf-8") != original
    with pytest.raises(SystemExit, match="the pseudo-labels were made for labels"):
        make_trainer().on_train_start()
    dataset_json.write_text(original)

    record = project.paths.pseudo_labels("all") / "unlabelled_00.json"
    record.write_text(json.dumps({**json.loads(record.read_text(encoding="utf-8")), "input": "another image"}))
    with pytest.raises(
        SystemExit, match="the image of unlabelled_00 changed since it was labelled; run sfr_pseudolabel"
    ):
        make_trainer().on_train_start()


def test_cases_of_another_spacing_are_refused(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """Both plans say 2 mm, the store too, but nothing was preprocessed again."""
    for file in (
        project.paths.plans_file,
        project.paths.sfr_plans_file,
        project.paths.pseudo_labels("all") / "manifest.json",
    ):
        text = json.dumps(json.loads(file.read_text(encoding="utf-8")))
        assert '"spacing": [1.0, 1.0, 1.0]' in text
        file.write_text(text.replace('"spacing": [1.0, 1.0, 1.0]', '"spacing": [2.0, 2.0, 2.0]'))
    with pytest.raises(
        SystemExit, match=r"error: train_00: .* a target spacing changed since; run sfr_plan_and_preprocess"
    ):
        make_trainer().on_train_start()
