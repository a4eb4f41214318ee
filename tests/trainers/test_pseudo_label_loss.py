"""How far pseudo-labels are trusted: each weight by hand, and what a trainer makes of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_sfr.data.confidence_transform import WithVoxelConfidence
from nnunet_sfr.data.datasets import PseudoLabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.voxel_confidence import voxel_confidence_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.settings import PseudoWeightingSettings
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.pseudo_label_loss import (
    PseudoLabelLoss,
    boundary_weights,
    case_weights,
    confidence_weights,
    soft_target,
)
from nnunet_sfr.trainers.schedules import falling_share
from tests.project_fixtures import TrainerFactory
from tests.tiny_project import change_settings
from tests.trainers.test_supervised_loss import PLAIN, REGIONS, a_batch, nnunet_loss

Settings = PseudoWeightingSettings

# --- the weights ---


def test_confidence_weights_by_hand() -> None:
    confidence = torch.tensor([0.4, 0.5, 0.75, 0.9, 1.0])
    assert confidence_weights(confidence, guess=0.5, power=1.0).tolist() == pytest.approx([0, 0, 0.5, 0.8, 1])
    assert confidence_weights(confidence, guess=0.5, power=2.0).tolist() == pytest.approx([0, 0, 0.25, 0.64, 1])
    assert confidence_weights(confidence, guess=0.5, power=0, threshold=0.75).tolist() == [0, 0, 1, 1, 1]


def test_boundary_weights_by_hand() -> None:
    """0 0 0 0 | 1 1 1: the two voxels at the boundary have d = 0."""
    line = torch.tensor([0.0, 0, 0, 0, 1, 1, 1]).reshape(1, 1, 1, 7)
    assert boundary_weights(line, lowest=0.2, width=1).flatten().tolist() == pytest.approx([1, 1, 1, 0.2, 0.2, 1, 1])
    two = boundary_weights(line, lowest=0.2, width=2).flatten().tolist()
    assert two == pytest.approx([1, 1, 0.6, 0.2, 0.2, 0.6, 1])
    three = boundary_weights(line, lowest=0.0, width=3).flatten().tolist()
    assert three == pytest.approx([1, 2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3])


def test_boundaries_in_3d_count_diagonals_and_any_region() -> None:
    labels = torch.zeros(1, 1, 5, 5, 5)
    labels[0, 0, 2, 2, 2] = 2
    weights = boundary_weights(labels, lowest=0.0, width=2)
    assert (weights[0, 0, 1:4, 1:4, 1:4] == 0).all()
    assert weights.sum() == (125 - 27) * 0.5
    regions = torch.cat((torch.zeros_like(labels), (labels > 0).float()), dim=1)
    torch.testing.assert_close(boundary_weights(regions, lowest=0.0, width=2), weights)


def test_soft_targets_by_hand() -> None:
    labels = torch.tensor([2.0, 0.0]).reshape(1, 1, 2, 1)
    confidence = torch.tensor([0.7, 1.0]).reshape(1, 1, 2, 1)
    target = soft_target(labels, confidence, num_classes=3)
    assert target[0, :, 0, 0].tolist() == pytest.approx([0.15, 0.15, 0.7])
    assert target[0, :, 1, 0].tolist() == [1, 0, 0]


def test_case_weights_by_hand() -> None:
    records: dict[str, dict[str, Any]] = {
        "a": {"expected_dice": 0.9},
        "b": {"expected_dice": 0.6},
        "c": {"expected_dice": None},
    }
    assert case_weights(records, Settings()) is None
    assert case_weights(records, Settings(case_measure="expected_dice")) == pytest.approx({"a": 1.8, "b": 1.2, "c": 0})
    squared = case_weights(records, Settings(case_measure="expected_dice", case_power=2.0))
    assert squared == pytest.approx({"a": 0.81 / 0.39, "b": 0.36 / 0.39, "c": 0})
    with pytest.raises(UserError, match="no pseudo-label has a agreement; choose another measure, or null"):
        case_weights(records, Settings(case_measure="agreement"))


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 1.0), (0.5, 1.0), (0.75, 0.6), (1.0, 0.2), (1.5, 0.2)], ids=str
)
def test_falling_share_by_hand(progress: float, expected: float) -> None:
    assert falling_share(progress, falls_from=0.5, final_share=0.2) == pytest.approx(expected)
    assert falling_share(progress, falls_from=0.5, final_share=1.0) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"case_measure": "mood"}, "case_measure must be null or one of joint_agreement"),
        ({"case_power": 0.0}, "case_power must be positive, got 0.0"),
        ({"voxel_power": -1.0}, "voxel_power must be at least 0, got -1.0"),
        ({"voxel_threshold": 1.5}, "voxel_threshold must lie between 0 and 1, got 1.5"),
        ({"boundary_weight": 2.0}, "boundary_weight must lie between 0 and 1, got 2.0"),
        ({"boundary_width": 0}, "boundary_width must be at least 1, got 0"),
        ({"falls_from": 1.0}, r"falls_from must lie in \[0, 1\), got 1.0"),
        ({"final_share": -0.1}, "final_share must lie between 0 and 1, got -0.1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**change)


# --- the loss ---


def patches(labels: Any, confidence: torch.Tensor | None = None) -> tuple[list[torch.Tensor], Patches]:
    logits, target = a_batch(labels)
    return [logits], Patches(torch.zeros(2, 1), [target], ("a", "b"), confidence)


def deep_loss(labels: Any) -> Any:
    loss = nnunet_loss(labels)
    loss.weight_factors = (1.0,)
    return loss


def test_the_defaults_are_nnunets_loss_itself() -> None:
    loss = deep_loss(PLAIN)
    outputs, batch = patches(PLAIN)
    ours = PseudoLabelLoss(loss, Settings(), num_classes=3, regions=False)
    assert ours(outputs, batch).item() == loss(outputs, batch.targets).item()


def test_all_weights_together() -> None:
    """c_i times (confidence times boundary), on soft targets: the parts as computed above, in one loss."""
    confidence = torch.rand(2, 1, 4, 5, 6, generator=torch.Generator().manual_seed(3))
    outputs, batch = patches(PLAIN, confidence)
    settings = Settings(
        case_measure="expected_dice", voxel_power=2.0, voxel_threshold=0.5, boundary_weight=0.3, soft_targets=True
    )
    loss = PseudoLabelLoss(deep_loss(PLAIN), settings, num_classes=3, regions=False, case_weights={"a": 0.5, "b": 1.5})
    weights = confidence_weights(confidence, guess=1 / 3, power=2.0, threshold=0.5)
    weights = weights * boundary_weights(batch.targets[0], lowest=0.3, width=2)
    target = soft_target(batch.targets[0], confidence, num_classes=3)
    expected = loss._weighted_loss(outputs, [target], [weights], [torch.tensor([0.5, 1.5])])
    torch.testing.assert_close(loss(outputs, batch), expected)
    without_deep_supervision = PseudoLabelLoss(
        deep_loss(PLAIN).loss, settings, num_classes=3, regions=False, case_weights={"a": 0.5, "b": 1.5}
    )
    flat = Patches(batch.images, batch.targets[0], batch.identifiers, confidence)
    torch.testing.assert_close(without_deep_supervision(outputs[0], flat), expected)
    with pytest.raises(ValueError, match="expected the identifiers of 2 patches, got 0"):
        loss(outputs, Patches(batch.images, batch.targets, (), confidence))


def test_a_guess_among_regions() -> None:
    """Two regions: four outcomes, so a voxel decided with 0.25 was guessed."""
    outputs, batch = patches(REGIONS, torch.full((2, 1, 4, 5, 6), 0.25))
    loss = PseudoLabelLoss(deep_loss(REGIONS), Settings(voxel_power=1.0), num_classes=2, regions=True)
    assert loss.voxel_weights(batch.targets[0], batch.voxel_confidence).abs().max() == 0
    (gradient,) = torch.autograd.grad(loss(outputs, batch), outputs[0])
    assert gradient.abs().max() == 0


# --- the map on its way to the loss ---


class Turn:
    """Stands for nnU-Net's transforms: mirrors everything, and gives two resolutions."""

    def __call__(self, **data: torch.Tensor) -> dict[str, Any]:
        turned = {name: value.flip(-1) for name, value in data.items()}
        segmentation = turned["segmentation"]
        return {**turned, "segmentation": [segmentation, segmentation[..., ::2]]}


def test_the_map_moves_with_the_labels() -> None:
    labels = torch.tensor([[[0, 1, 1, -1]]], dtype=torch.int16)
    confidence = torch.tensor([[[255, 51, 0, -1]]], dtype=torch.int16)
    transform: Any = WithVoxelConfidence(Turn())
    result = transform(image=torch.zeros(1, 1, 4), segmentation=torch.cat((labels, confidence)))
    fine, coarse, probabilities = result["segmentation"]
    assert fine.tolist() == [[[-1, 1, 1, 0]]]
    assert coarse.shape == (1, 1, 2)
    assert probabilities.flatten().tolist() == pytest.approx([1.0, 0.0, 0.2, 1.0])


def fill_confidence(dataset: SFRDataset, confidence: Callable[[np.ndarray], np.ndarray]) -> PseudoLabelStore:
    """Write the store again, with a map that depends on the labels (D, H, W) and an expected Dice."""
    store = PseudoLabelStore.open(dataset.paths.pseudo_labels("all"), grid=dataset.grid)
    for number, identifier in enumerate(store.identifiers()):
        labels = store.read_labels(identifier)
        store.write(
            identifier,
            labels,
            {"expected_dice": 0.5 + 0.1 * number},
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
            voxel_confidence=confidence(labels[0]),
        )
    return store


def test_maps_are_stored_and_replaced(project: SFRDataset) -> None:
    store = fill_confidence(project, lambda labels: np.where(labels > 0, 0.6, 0.9))
    identifier = store.identifiers()[0]
    cases = PseudoLabelledDataset(project.paths.unlabelled, store, voxel_confidence=True)
    _, labels, confidence, _ = cases.load_case(identifier)
    expected = np.where(labels[:][0] > 0, 153, 230)
    np.testing.assert_array_equal(confidence[:], expected)
    assert confidence.dtype == np.uint8
    assert PseudoLabelledDataset(project.paths.unlabelled, store).load_case(identifier)[2] is None
    store.write(
        identifier,
        labels[:],
        {},
        label_manager=project.label_manager,
        patch_size=project.configuration_manager.patch_size,
    )
    assert not voxel_confidence_file(store.folder, identifier).exists(), "an older map must not stay"
    with pytest.raises(UserError, match=rf"has no voxel confidence of {identifier} \(1 of \d+ cases are without\)"):
        PseudoLabelledDataset(project.paths.unlabelled, store, voxel_confidence=True)


# --- trainers ---

EVERYTHING_ON = {
    "case_measure": "expected_dice",
    "voxel_power": 1.0,
    "boundary_weight": 0.5,
    "soft_targets": True,
    "falls_from": 0.0,
    "final_share": 0.0,
}


def trust(project: SFRDataset, **changes: Any) -> None:
    change_settings(project, {"retraining": {"pseudo_weighting": changes}})


@pytest.mark.parametrize("name", ["nnUNetTrainerSFR_MT", "nnUNetTrainerSFR_MagicNet", "nnUNetTrainerSFR_ICT"])
def test_confidence_arrives_on_its_voxels(make_trainer: TrainerFactory, project: SFRDataset, name: str) -> None:
    """Through nnU-Net's loader and augmentation: voxels labelled 1 have 0.6, the others 0.9 and padding 1."""
    fill_confidence(project, lambda labels: np.where(labels > 0, 0.6, 0.9))
    trust(project, **EVERYTHING_ON)
    trainer = make_trainer(name)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    patches = trainer._patches(batch["unlabelled"], voxel_confidence=True)
    target, confidence = patches.targets[0], patches.voxel_confidence
    assert len(patches.targets) == len(batch["labelled"]["target"])
    assert confidence.shape == target.shape
    interior = boundary_weights(target, lowest=0.0, width=3) == 1
    assert (target[interior] == 1).any()
    torch.testing.assert_close(confidence[interior & (target == 1)].median(), torch.tensor(0.6), rtol=0, atol=0.01)
    assert confidence[interior & (target == 1)].max() < 0.61
    assert confidence[interior & (target == 0)].min() > 0.89
    pool = trainer.pseudo_label_loss.case_weights
    assert sum(pool.values()) / len(pool) == pytest.approx(1.0)
    result = trainer.train_step(batch)
    assert all(np.isfinite(value) for value in result.values())


def test_one_step_descends_the_weighted_loss(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """The gradient of L_sup + w_p(t) L_pl with every weight on; without consistency."""
    fill_confidence(project, lambda labels: np.where(labels > 0, 0.6, 0.9))
    trust(project, **EVERYTHING_ON)
    change_settings(project, {"retraining": {"consistency_weight": 0.0, "pseudo_label_weight": 2.0}})
    trainer = make_trainer()
    trainer.on_train_start()
    trainer.iteration = 1  # of four: the weight has fallen to 2 * 0.75
    batch = next(trainer.dataloader_train)
    patches = trainer._patches(batch["unlabelled"], voxel_confidence=True)
    supervised = trainer.loss(trainer.network(batch["labelled"]["data"]), batch["labelled"]["target"])
    pseudo = trainer.pseudo_label_loss(trainer.network(patches.images), patches)
    plain = trainer.loss(trainer.network(patches.images), patches.targets)
    assert abs(pseudo.item() - plain.item()) > 1e-3
    expected = torch.autograd.grad(supervised + 1.5 * pseudo, list(trainer.network.parameters()), allow_unused=True)
    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in trainer.network.parameters())
    result = trainer.train_step(batch)
    assert result["pseudo_label_weight"] == 1.5
    assert result["loss"] == pytest.approx(supervised.item() + 1.5 * pseudo.item(), rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is not None and theirs.abs().max() > 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_weights_off_change_nothing(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """Not even the patches that are drawn: the same seed gives the same weights as settings of 1 on everything."""

    def trained() -> torch.Tensor:
        trainer = make_trainer("nnUNetTrainerSFR_MT_1epochs")
        trainer.run_training()
        return nn.utils.parameters_to_vector(trainer.student.parameters())

    plain = trained()
    fill_confidence(project, np.ones_like)
    trust(project, voxel_power=1.0)
    torch.testing.assert_close(trained(), plain, rtol=1e-4, atol=1e-6)


def test_self_training_trusts_its_own_labels_by_what_it_stored(
    make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    """The first epoch without pseudo-labels, the second with its own, weighted per case and per voxel."""
    trust(project, voxel_power=1.0, case_measure="flip_agreement")
    change_settings(project, {"retraining": {"st": {"relabel_at": [0.5]}}})
    trainer = make_trainer("nnUNetTrainer_ST")
    relabel = trainer._relabel

    def find_foreground_everywhere(round_index: int) -> None:
        # an untrained network's labels agree with nothing
        with torch.no_grad():
            trainer.student.decoder.seg_layers[-1].bias += torch.tensor([0.0, 1000.0])
        relabel(round_index)

    trainer._relabel = find_foreground_everywhere
    trainer.run_training()
    assert trainer._delivers_voxel_confidence
    assert trainer.pseudo_label_loss.case_weights == {"unlabelled_00": 1.0, "unlabelled_01": 1.0}
    log = trainer.logger.local_logger.my_fantastic_logging["pseudo_label_loss"]
    assert log[0] == 0
    assert log[1] != 0


def test_users_mistakes(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    trust(project, voxel_threshold=0.5)
    with pytest.raises(SystemExit, match=r"has no voxel confidence of unlabelled_.*run sfr_pseudolabel --overwrite "):
        make_trainer().on_train_start()
    trust(project, case_measure="flip_agreement")
    with pytest.raises(SystemExit, match="no pseudo-label has a flip_agreement"):
        make_trainer().on_train_start()
    trust(project, case_weight=1)
    with pytest.raises(SystemExit, match="retraining: pseudo_weighting: unknown setting case_weight"):
        make_trainer().on_train_start()
