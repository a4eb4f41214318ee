"""Self-training: who labels the pool when, that it can be stopped in between, and what the labels are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import weights_hash
from nnunet_sfr.labelling import case_labels, filling
from nnunet_sfr.labelling.case_labels import CaseLabels, LoadedCase
from nnunet_sfr.trainers.model_card import model_card
from nnunet_sfr.trainers.model_facts import read_model_facts
from nnunet_sfr.trainers.schedules import relabelling_epochs
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import weights
from tests.tiny_project import change_settings


def round_folder(trainer: Any, round_index: int) -> Path:
    folder: Path = trainer.sfr_dataset.paths.pseudo_labels(
        "all", trainer=type(trainer).__name__, round_index=round_index
    )
    return folder


@pytest.mark.parametrize(
    ("shares", "epochs", "expected"),
    [
        ((0.3, 0.6), 1000, [300, 600]),
        ((0.3, 0.6), 5, [2, 3]),
        ((0.01, 0.99), 4, [1, 3]),  # never before the first epoch, never after the last
        ((0.3, 0.35), 4, [1]),
        ((0.5,), 1, []),
        ((), 10, []),
    ],
)
def test_relabelling_epochs(shares: tuple[float, ...], epochs: int, expected: list[int]) -> None:
    assert relabelling_epochs(shares, epochs) == expected


def test_each_epoch_learns_from_the_labels_of_its_round(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """Asserted from the batches that arrive: scripted labels tell which store they come from."""
    change_settings(project, {"retraining": {"epochs": 3, "st": {"relabel_at": [0.3, 0.6]}, "iterations_per_epoch": 2}})
    trainer = make_trainer("nnUNetTrainerSFR_ST")
    seen: list[tuple[int, float]] = []
    train_step, relabel = trainer.train_step, trainer._relabel

    def step(batch: Any) -> Any:
        foreground = (batch["unlabelled"]["target"][0] == 1).float().mean().item()
        seen.append((trainer.current_epoch, foreground))
        return train_step(batch)

    def scripted(round_index: int) -> None:
        """Round 1 says that everything is foreground, round 2 that nothing is."""
        bias = trainer.student.decoder.seg_layers[-1].bias
        before = bias.detach().clone()
        with torch.no_grad():
            bias += torch.tensor([0.0, 1000.0 if round_index == 1 else -1000.0])
        relabel(round_index)
        with torch.no_grad():
            bias.copy_(before)

    trainer.train_step, trainer._relabel = step, scripted
    trainer.run_training()

    by_epoch = {epoch: [share for at, share in seen if at == epoch] for epoch in range(3)}
    assert all(0 < share < 0.5 for share in by_epoch[0]), "the first labels are the store's"
    assert min(by_epoch[1]) > 2 * max(by_epoch[0])  # not 1: patches reach over the borders of the tiny images
    assert all(share == 0 for share in by_epoch[2])
    assert trainer.logger.local_logger.my_fantastic_logging["round"] == [0.0, 1.0, 2.0]


def test_without_first_labels_the_first_part_is_supervised(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    shutil.rmtree(project.paths.pseudo_labels("all"))
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    trainer = make_trainer("nnUNetTrainer_ST")
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    assert log["pseudo_label_loss"][0] == 0.0
    assert log["pseudo_label_loss"][1] != 0.0
    assert log["train_losses"][0] == pytest.approx(log["supervised_loss"][0])


def test_the_labels_are_the_network_s_own(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    trainer = make_trainer("nnUNetTrainer_ST")
    trainer.on_train_start()
    trainer.current_epoch = 1
    trainer.on_epoch_start()
    store = PseudoLabelStore.open(round_folder(trainer, 1), grid=project.grid)
    assert store.made_by.weights_sha256 == weights_hash(trainer.student)
    assert store.made_by.epoch == 1
    image, _, _, _ = trainer.unlabelled_dataset().load_case("unlabelled_00")
    patch = trainer.configuration_manager.patch_size
    # the tiny case fits into one patch, so that one forward pass is the whole sliding window
    padding = [(0, 0)] + [
        ((size - length) // 2, -(-(size - length) // 2)) for size, length in zip(patch, image.shape[1:], strict=True)
    ]
    padded = np.pad(image[:], padding)
    inside = tuple(
        slice(before, before + length) for (before, _), length in zip(padding[1:], image.shape[1:], strict=True)
    )
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        expected = trainer.student.eval()(torch.from_numpy(padded)[None])[0].argmax(0).numpy()[inside]
    labels = store.read_labels("unlabelled_00")[0]
    assert (np.maximum(labels, 0) == expected).mean() > 0.999
    record = store.read_confidence("unlabelled_00")
    assert 0.5 <= record["mean_max_probability"] <= 1.0


@pytest.mark.parametrize(("name", "first"), [("nnUNetTrainer_ST", None), ("nnUNetTrainerSFR_ST", "threshold")])
def test_the_card_tells_who_made_the_labels(
    make_trainer: TrainerFactory, project: SFRDataset, name: str, first: str | None
) -> None:
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    trainer = make_trainer(name)
    trainer.on_train_start()
    folder = Path(trainer.output_folder).parent
    made_by = read_model_facts(project, folder, ["all"]).pseudo_labels
    assert first == (None if made_by is None else made_by.source)
    trainer.current_epoch = 1
    trainer.on_epoch_start()
    facts = read_model_facts(project, folder, ["all"])
    assert facts.pseudo_labels is not None
    assert (facts.pseudo_labels.source, facts.pseudo_labels.weights_sha256) == (name, weights_hash(trainer.student))
    card = model_card(facts)
    assert f"Made by: the network itself, after 1 epochs of its training ({name}).\n" in card
    assert ("Before it labelled the cases itself: threshold.\n" in card) == (first is not None)


def test_stopped_while_it_labels_it_goes_on_there(
    make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_settings(project, {"retraining": {"epochs": 3, "st": {"relabel_at": [0.5]}}})
    undisturbed = make_trainer("nnUNetTrainerSFR_ST")
    undisturbed.run_training()
    folder = round_folder(undisturbed, 1)
    labels = {file.name: file.read_bytes() for file in folder.glob("*.b2nd")}
    assert len(labels) == 2
    shutil.rmtree(undisturbed.output_folder)
    shutil.rmtree(folder)

    killed = make_trainer("nnUNetTrainerSFR_ST")
    labelled: list[str] = []
    label_case = case_labels.label_case

    def die_at_the_second_case(case: LoadedCase, *rest: Any, **options: Any) -> CaseLabels:
        if labelled:
            raise KeyboardInterrupt
        labelled.append(case.identifier)
        return label_case(case, *rest, **options)

    monkeypatch.setattr(filling, "label_case", die_at_the_second_case)
    with pytest.raises(KeyboardInterrupt):
        killed.run_training()
    assert [file.stem for file in folder.glob("*.b2nd")] == labelled

    monkeypatch.setattr(filling, "label_case", label_case)
    first = folder / f"{labelled[0]}.b2nd"
    made = first.stat().st_mtime_ns
    torch.manual_seed(7)
    resumed = make_trainer("nnUNetTrainerSFR_ST")
    resumed.load_checkpoint(str(Path(resumed.output_folder, "checkpoint_latest.pth")))
    resumed.run_training()
    assert first.stat().st_mtime_ns == made, "the first case was there already"
    assert {file.name: file.read_bytes() for file in folder.glob("*.b2nd")} == labels
    assert torch.equal(weights(resumed.student), weights(undisturbed.student))


def test_labels_of_an_earlier_training_are_replaced(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    first = make_trainer("nnUNetTrainerSFR_ST")
    first.run_training()
    manifest = round_folder(first, 1) / "manifest.json"
    before = manifest.read_text(encoding="utf-8")
    shutil.rmtree(first.output_folder)
    change_settings(project, {"retraining": {"seed": 1}})
    second = make_trainer("nnUNetTrainerSFR_ST")
    second.run_training()
    assert manifest.read_text(encoding="utf-8") != before


def foreground_everywhere(trainer: Any) -> None:
    """Let the network find foreground in every voxel: its labels are known, and the same of mirrored images."""
    with torch.no_grad():
        trainer.student.decoder.seg_layers[-1].bias += torch.tensor([0.0, 1000.0])


def relabelled_at_its_second_epoch(trainer: Any) -> Any:
    trainer.on_train_start()
    foreground_everywhere(trainer)
    trainer.current_epoch = 1
    trainer.on_epoch_start()
    return trainer


@pytest.mark.parametrize("measure", ["sam_agreement", "agreement", "joint_agreement", "previous_round_agreement"])
def test_cases_weigh_by_how_their_new_labels_agree_with_the_first(
    make_trainer: TrainerFactory, project: SFRDataset, measure: str
) -> None:
    """Everything is foreground, so the Dice with a blob of b of n voxels is 2b / (b + n)."""
    change_settings(
        project, {"retraining": {"st": {"relabel_at": [0.5]}, "pseudo_weighting": {"case_measure": measure}}}
    )
    trainer = relabelled_at_its_second_epoch(make_trainer("nnUNetTrainer_ST"))
    first = PseudoLabelStore.open(project.paths.pseudo_labels("all"), grid=project.grid)
    shares = {case: (first.read_labels(case) == 1).mean() for case in first.identifiers()}
    dices = {case: 2 * share / (1 + share) for case, share in shares.items()}
    mean = sum(dices.values()) / len(dices)
    assert trainer.pseudo_label_loss.case_weights == pytest.approx({case: dice / mean for case, dice in dices.items()})
    assert len(set(dices.values())) == 2


def test_labels_without_what_the_weights_need_are_made_again(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """As after a run that failed on them, which finds the same network when it is continued."""
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    unweighted = relabelled_at_its_second_epoch(make_trainer("nnUNetTrainer_ST"))
    folder = round_folder(unweighted, 1)
    store = PseudoLabelStore.open(folder, grid=project.grid)
    assert store.read_confidence("unlabelled_00")["flip_agreement"] is None
    change_settings(project, {"retraining": {"pseudo_weighting": {"case_measure": "flip_agreement"}}})
    resumed = make_trainer("nnUNetTrainer_ST")
    resumed.load_checkpoint(str(Path(resumed.output_folder, "checkpoint_latest.pth")))
    resumed.on_train_start()
    resumed.on_epoch_start()
    again = PseudoLabelStore.open(folder, grid=project.grid)
    assert again.made_by.weights_sha256 == store.made_by.weights_sha256
    assert again.read_confidence("unlabelled_00")["flip_agreement"] == 1.0


@pytest.mark.parametrize(
    ("measure", "first_labels", "said"),
    [
        (
            "plane_agreement",
            True,
            "plane_agreement cannot be measured of the labels that nnUNetTrainer_ST makes; choose",
        ),
        ("agreement", False, r"agreement compares with the first labels, and there are none in .*run sfr_pseudolabel"),
        ("previous_round_agreement", False, "previous_round_agreement compares with the first labels, and there are"),
    ],
)
def test_a_measure_that_its_labels_cannot_have_is_refused_before_it_trains(
    make_trainer: TrainerFactory, project: SFRDataset, measure: str, first_labels: bool, said: str
) -> None:
    if not first_labels:
        shutil.rmtree(project.paths.pseudo_labels("all"))
    change_settings(project, {"retraining": {"pseudo_weighting": {"case_measure": measure}}})
    with pytest.raises(SystemExit, match=f"^error: retraining.pseudo_weighting.case_measure: {said}"):
        make_trainer("nnUNetTrainer_ST").on_train_start()


def test_first_labels_of_some_cases_are_too_few_to_compare_with(
    make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    (project.paths.pseudo_labels("all") / "unlabelled_01.b2nd").unlink()
    change_settings(project, {"retraining": {"pseudo_weighting": {"case_measure": "sam_agreement"}}})
    with pytest.raises(SystemExit, match="no pseudo-label for unlabelled_01 "):
        make_trainer("nnUNetTrainer_ST").on_train_start()


def test_a_run_without_any_labelling_is_refused(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    with pytest.raises(SystemExit, match=r"error: nnUNetTrainer_ST_1epochs never labels .* 2 epochs \(1\) or more"):
        make_trainer("nnUNetTrainer_ST_1epochs").initialize()
    change_settings(project, {"retraining": {"st": {"relabel_at": []}}})
    with pytest.raises(SystemExit, match="never labels"):
        make_trainer("nnUNetTrainer_ST").initialize()
    make_trainer("nnUNetTrainerSFR_ST").initialize()
