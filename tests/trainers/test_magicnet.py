"""MagicNet on a tiny project: the gradient of the written-out loss, the pseudo-label, and what a checkpoint keeps."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.paths import TEACHER_CHECKPOINT
from nnunet_sfr.trainers import find_trainer, magicnet
from nnunet_sfr.trainers.checkpoints import CHECKPOINT_KEY
from nnunet_sfr.trainers.class_statistics import blend
from nnunet_sfr.trainers.cubes import CubeGrid, partition, recover
from nnunet_sfr.trainers.schedules import consistency_weight
from tests.project_fixtures import TrainerFactory
from tests.stopped_runs import require_same_training, resume, train_until_killed, weights
from tests.tiny_project import change_settings, fill_store, make_project, nnunet_folders

CPU = torch.device("cpu")
NAMES = ["nnUNetTrainer_MagicNet", "nnUNetTrainerSFR_MagicNet"]


def state_after_windows(counts: list[int]) -> dict[str, Any]:
    """Class statistics that have seen one window and are at the start of the next."""
    return {
        "counts": torch.zeros(len(counts), dtype=torch.int64),
        "iterations": 0,
        "finished": torch.tensor(counts),
        "finished_windows": 1,
    }


def separate_teacher_from_student(trainer: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in trainer.teacher.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


# --- the loss, written out without the package's own geometry ---


def cube_slices(grid: CubeGrid) -> Iterator[tuple[int, tuple[slice, ...], tuple[int, ...]]]:
    """Number, voxels and grid position of every cube, the last axis fastest."""
    for number, position in enumerate(itertools.product(*map(range, grid.cubes_per_axis))):
        voxels = tuple(slice(i * edge, (i + 1) * edge) for i, edge in zip(position, grid.cube_size, strict=True))
        yield number, voxels, position


def soft_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """nnU-Net's: minus the mean over items and foreground classes."""
    p = torch.softmax(logits, dim=1)
    y = torch.cat([(target == label).float() for label in range(logits.shape[1])], dim=1)
    axes = tuple(range(2, logits.ndim))
    dice = (2 * (p * y).sum(axes) + 1e-5) / (p.sum(axes) + y.sum(axes) + 1e-5)
    return -dice[:, 1:].mean()


def mixed(images: torch.Tensor, permutation: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    result = torch.empty_like(images)
    for _, voxels, position in cube_slices(grid):
        for item in range(len(images)):
            source = int(permutation[(item, *position)])
            result[item][(slice(None), *voxels)] = images[source][(slice(None), *voxels)]
    return result


def put_back(values: torch.Tensor, permutation: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    result = torch.zeros_like(values)
    for _, voxels, position in cube_slices(grid):
        for item in range(len(values)):
            source = int(permutation[(item, *position)])
            result[source][(slice(None), *voxels)] = values[item][(slice(None), *voxels)]
    return result


def cube_by_cube(
    network: nn.Module, head: nn.Module, images: torch.Tensor, grid: CubeGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of every cube on its own, where the cube was, and the mean cross-entropy of its position."""
    logits: list[torch.Tensor] = []
    position_losses = []
    for image in images:
        pieces = torch.zeros(2, *image.shape[1:])
        for number, voxels, _ in cube_slices(grid):
            features = network.encoder(image[(None, slice(None), *voxels)])  # type: ignore[operator]
            pieces[(slice(None), *voxels)] = network.decoder(features)[0][0]  # type: ignore[operator]
            position = head.linear(features[-1].flatten(1))  # type: ignore[operator]
            position_losses.append(F.cross_entropy(position, torch.tensor([number])))
        logits.append(pieces)
    return torch.stack(logits), torch.stack(position_losses).mean()


@pytest.mark.parametrize("name", NAMES)
def test_one_step_descends_the_stated_loss(
    name: str, make_trainer: TrainerFactory, project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.5 (CE + Dice) + 0.5 mixed Dice + 0.5 cube Dice + position + w(t) Dice with the pseudo-label (+ w_p L_pl)."""
    changes: dict[str, Any] = {
        "pseudo_label_weight": 0.5,
        "consistency_weight": 3.0,
        "teacher_noise_std": 0.0,
        "magicnet": {"position_weight": 0.7, "blending_start": 1, "class_temperature": 2.0},
    }
    change_settings(project, {"retraining": changes})
    trainer = make_trainer(name)
    trainer.on_train_start()
    trainer.iteration = 2
    separate_teacher_from_student(trainer)
    trainer.class_statistics.load_state_dict(state_after_windows([900, 400]))
    batch = next(trainer.dataloader_train)
    labelled, unlabelled = batch["labelled"], batch["unlabelled"]
    grid, network, head = trainer.grid, trainer.network, trainer.extra_modules["position_head"]
    permutation = torch.rand(4, *grid.cubes_per_axis, generator=torch.Generator().manual_seed(5)).argsort(dim=0)
    monkeypatch.setattr(magicnet, "draw_permutation", lambda *_: permutation)

    images, truth = torch.cat((labelled["data"], unlabelled["data"])), labelled["target"][0]
    logits = put_back(network(mixed(images, permutation, grid))[0], permutation, grid)
    cubes, position_loss = cube_by_cube(network, head, images, grid)
    teacher = trainer.teacher(unlabelled["data"])
    # temperature 2: (400 / 900) ** (1 / 2)
    omega = torch.tensor([1.0, 2 / 3])[teacher.argmax(1, keepdim=True)]
    pseudo_label = ((1 - omega) * teacher + omega * cubes[2:]).argmax(1, keepdim=True)
    terms = {
        "supervised_loss": (0.5, trainer.loss(network(labelled["data"]), labelled["target"])),
        "mixed_loss": (0.5, soft_dice(logits[:2], truth)),
        "cube_loss": (0.5, soft_dice(cubes[:2], truth)),
        "position_loss": (0.7, position_loss),
        "consistency_loss": (
            consistency_weight(2, total_iterations=4, maximum=3.0, ramp_up_fraction=1.0),
            soft_dice(logits[2:], pseudo_label),
        ),
    }
    if "SFR" in name:
        terms["pseudo_label_loss"] = (0.5, trainer.loss(network(unlabelled["data"]), unlabelled["target"]))
    expected_loss = torch.stack([weight * loss for weight, loss in terms.values()]).sum()
    parameters = [*network.parameters(), *head.parameters()]
    expected = torch.autograd.grad(expected_loss, parameters, allow_unused=True)

    gradients: list[torch.Tensor | None] = []
    trainer._optimizer_step = lambda: gradients.extend(parameter.grad for parameter in parameters)
    result = trainer.train_step(batch)

    assert (pseudo_label != teacher.argmax(1, keepdim=True)).any(), "the blending must decide something"
    assert 0 < pseudo_label.float().mean() < 1
    assert set(result) == {"loss", "consistency_weight", *terms}
    for term, (_, loss) in terms.items():
        assert result[term] == pytest.approx(loss.item(), rel=1e-4), term
    assert result["loss"] == pytest.approx(expected_loss.item(), rel=1e-4)
    compared = 0
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is None:
            assert ours is None  # the head of the lowest resolution, whose weight is 0
            continue
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
        compared += int(theirs.abs().max() > 1e-3)
    assert compared > len(parameters) / 2


def test_mixed_precision_makes_the_same_step(make_trainer: TrainerFactory) -> None:
    """As on a GPU, a scaler multiplies the losses; both optimisers must see the gradients without its factor."""
    results = []
    for scaler in (None, torch.GradScaler("cpu", init_scale=1024.0)):
        trainer = make_trainer("nnUNetTrainer_MagicNet")
        trainer.grad_scaler = scaler
        trainer.on_train_start()
        start = [weights(trainer.student), weights(trainer.extra_modules)]
        trainer.train_step(next(trainer.dataloader_train))
        results.append([weights(trainer.student) - start[0], weights(trainer.extra_modules) - start[1]])
        if scaler is not None:
            # one step counts once, whatever the number of optimisers
            assert scaler.state_dict()["_growth_tracker"] == 1
    for ours, expected in zip(*results, strict=True):
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_may_leave_the_extra_modules_out(
    scaled: bool, make_trainer: TrainerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scaler refuses an optimiser without any gradient."""
    monkeypatch.setattr(magicnet, "position_loss", lambda *_: torch.zeros(()))
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.grad_scaler = torch.GradScaler("cpu") if scaled else None
    trainer.on_train_start()
    head, student = weights(trainer.extra_modules), weights(trainer.student)
    trainer.train_step(next(trainer.dataloader_train))
    assert torch.equal(weights(trainer.extra_modules), head)
    assert not torch.equal(weights(trainer.student), student)


def test_the_head_learns_at_nnunets_rate(make_trainer: TrainerFactory) -> None:
    """nnU-Net's schedule knows nnU-Net's optimiser alone."""
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.on_train_start()
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    rates = [
        group["lr"] for optimizer in (trainer.optimizer, trainer.extra_optimizer) for group in optimizer.param_groups
    ]
    assert rates == [pytest.approx(0.01 * 0.5**0.9)] * 2


def test_the_teacher_learns_nothing_from_the_losses(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.on_train_start()
    trainer.train_step(next(trainer.dataloader_train))
    assert all(parameter.grad is None for parameter in trainer.teacher.parameters())


def test_putting_back_logits_is_putting_back_features(make_trainer: TrainerFactory) -> None:
    """The authors put back the features before the last layer and apply it then; it has a kernel of one voxel."""
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.initialize()
    grid, last_layer = trainer.grid, trainer.student.decoder.seg_layers[-1]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, *grid.patch_size, generator=generator)
    permutation = torch.rand(4, *grid.cubes_per_axis, generator=generator).argsort(dim=0)
    features: list[torch.Tensor] = []
    hook = last_layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        logits = trainer.network(partition(images, permutation, grid))[0]
        hook.remove()
        ours, theirs = recover(logits, permutation, grid), last_layer(recover(features[0], permutation, grid))
    assert features[0].shape[1] > 2, "these must be features, not logits"
    assert (ours - logits).abs().max() > 0.1, "the permutation must move something"
    torch.testing.assert_close(ours, theirs)


# --- the pseudo-label ---


@pytest.mark.parametrize(
    ("start", "window", "blended_from"),
    [(0, 1, 1), (2, 1, 3), (2, 2, 3), (0, 4, 4), (3, 4, 4)],
)
def test_cubes_are_heard_after_the_start_and_a_window(
    start: int, window: int, blended_from: int, make_trainer: TrainerFactory, project: SFRDataset
) -> None:
    """Iterations count from 0: with a window of 4 the counts of 0 to 3 are first used in iteration 4."""
    change_settings(project, {"retraining": {"magicnet": {"blending_start": start, "statistics_window": window}}})
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.initialize()
    # the teacher sees the common background in 7 of 8 voxels, hesitantly; the cubes are sure of the contrary
    teacher = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1).repeat(1, 1, 2, 2, 2)
    teacher[0, :, 0, 0, 0] = torch.tensor([0.0, 1.0])
    cubes = -9.0 * teacher
    plain = teacher.argmax(dim=1, keepdim=True)
    for iteration in range(6):
        trainer.iteration = iteration
        label = trainer._pseudo_label(teacher, cubes)
        if iteration < blended_from:
            assert torch.equal(label, plain), iteration
        else:
            omega = torch.tensor([1.0, 1 / 7])
            expected = blend(teacher, cubes, plain[:, 0], omega).argmax(dim=1, keepdim=True)
            assert torch.equal(label, expected), iteration
            # Omega is 1 in the background, so the cubes decide; a logit of 1 to -9 in the rare class loses 6/7 : 9/7
            assert label.flatten().tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


def test_a_rare_class_believes_the_teacher(make_trainer: TrainerFactory) -> None:
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.initialize()
    trainer.class_statistics.load_state_dict(state_after_windows([90, 10]))
    trainer.iteration = 1000
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 1, 1, 2)
    label = trainer._pseudo_label(teacher, -teacher)
    # background: Omega 1, all cubes; foreground: Omega 1/9, nearly all teacher
    assert label.flatten().tolist() == [1, 1]


def test_the_background_is_counted(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    change_settings(project, {"retraining": {"magicnet": {"statistics_window": 2}}})
    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.on_train_start()
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    voxels = torch.tensor(trainer.configuration_manager.patch_size).prod()
    # two steps of two unlabelled patches each
    assert trainer.class_statistics.state_dict()["finished"].sum() == 4 * voxels
    assert trainer.class_statistics.num_classes == 2


# --- checkpoints ---


def test_a_resumed_run_ends_with_the_same_weights(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    """Killed in the middle of a window of class statistics, with cubes that are heard from the first window on."""
    changes: dict[str, Any] = {"epochs": 3, "magicnet": {"statistics_window": 3, "blending_start": 0}}
    change_settings(project, {"retraining": changes})
    undisturbed = make_trainer("nnUNetTrainerSFR_MagicNet")
    undisturbed.run_training()
    shutil.rmtree(undisturbed.output_folder)

    killed = make_trainer("nnUNetTrainerSFR_MagicNet")
    train_until_killed(killed, epoch=2)
    resumed = resume(lambda: make_trainer("nnUNetTrainerSFR_MagicNet"))
    # the fourth iteration has finished the first window and begun the second
    statistics = resumed.class_statistics.state_dict()
    assert (statistics["iterations"], statistics["finished_windows"]) == (1, 1)
    assert torch.equal(weights(resumed.extra_modules), weights(killed.extra_modules))
    momenta = [momentum_of_the_head(trainer) for trainer in (resumed, killed)]
    assert momenta[0].abs().max() > 0
    assert torch.equal(*momenta)

    resumed.run_training()
    require_same_training(resumed, undisturbed)
    ours, expected = (trainer.class_statistics.state_dict() for trainer in (resumed, undisturbed))
    assert ours.keys() == expected.keys()
    assert torch.equal(ours.pop("counts"), expected.pop("counts"))
    assert torch.equal(ours.pop("finished"), expected.pop("finished"))
    assert ours == expected


def test_a_run_resumed_with_other_cubes_ends_with_one_line(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    stopped = make_trainer("nnUNetTrainer_MagicNet")
    stopped.initialize()
    stopped.save_latest_checkpoint()
    change_settings(project, {"retraining": {"magicnet": {"cubes_per_axis": 2}}})
    with pytest.raises(
        SystemExit,
        match=r"error: .*latest\.pth: .* retraining\.magicnet\.cubes_per_axis was 3 and is now 2; set the value",
    ):
        resume(lambda: make_trainer("nnUNetTrainer_MagicNet"))


def momentum_of_the_head(trainer: Any) -> torch.Tensor:
    momentum: torch.Tensor = trainer.extra_optimizer.state[trainer.extra_modules["position_head"].linear.weight][
        "momentum_buffer"
    ]
    return momentum


def test_nnunet_itself_loads_the_checkpoint(make_trainer: TrainerFactory) -> None:
    """The position head, and the optimiser's state for it, lie where a stock trainer does not look."""
    trainer = make_trainer("nnUNetTrainer_MagicNet_1epochs")
    trainer.run_training()
    final = torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=False)
    assert set(final[CHECKPOINT_KEY]["extra_modules"]) == {
        "position_head.linear.weight",
        "position_head.linear.bias",
    }
    for file, expected in (("checkpoint_final.pth", trainer.student), (TEACHER_CHECKPOINT, trainer.teacher)):
        network_weights = torch.load(Path(trainer.output_folder, file), weights_only=False)["network_weights"]
        stock = make_trainer("nnUNetTrainer")
        stock.initialize()
        stock.network.load_state_dict(network_weights, strict=True)
        assert torch.equal(weights(stock.network), weights(expected))
    assert not torch.equal(weights(trainer.student), weights(trainer.teacher)), "or the two files are not told apart"

    stock = make_trainer("nnUNetTrainer")
    stock.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    assert torch.equal(weights(stock.network), weights(trainer.student))


# --- every kind of network and data ---


def edit_plan(project: SFRDataset, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the plan of the configuration on disk, as a user would."""
    plans = json.loads(project.paths.plans_file.read_text(encoding="utf-8"))
    edit(plans["configurations"][project.paths.configuration])
    project.paths.plans_file.write_text(json.dumps(plans))


def train_two_steps(trainer: Any) -> None:
    """Every loss is a number, and head and network learn from them."""
    trainer.on_train_start()
    head, start = weights(trainer.extra_modules), weights(trainer.student)
    for _ in range(2):
        result = trainer.train_step(next(trainer.dataloader_train))
        assert all(torch.isfinite(torch.as_tensor(value)) for value in result.values()), result
    assert not torch.equal(weights(trainer.extra_modules), head)
    assert not torch.equal(weights(trainer.student), start)


def test_it_trains_a_residual_encoder(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    def to_residual_encoder(configuration: dict[str, Any]) -> None:
        architecture = configuration["architecture"]
        architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        arguments = architecture["arch_kwargs"]
        # as nnU-Net's ResEncUNetPlanner writes them
        del arguments["n_conv_per_stage"]
        arguments |= {"n_blocks_per_stage": [1, 3, 4], "n_conv_per_stage_decoder": [1, 1]}

    edit_plan(project, to_residual_encoder)
    trainer = make_trainer("nnUNetTrainerSFR_MagicNet")
    train_two_steps(trainer)
    assert type(trainer.student).__name__ == "ResidualEncoderUNet"


@pytest.mark.parametrize(
    ("options", "target_channels"),
    [
        ({"configuration": "2d", "shape": (10, 40, 36)}, 1),
        # two regions and what is to be ignored
        ({"classes": 2, "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}, 3),
    ],
    ids=["2d", "regions_with_ignore_label"],
)
def test_it_trains_on(options: dict[str, Any], target_channels: int, tmp_path: Path) -> None:
    with nnunet_folders(tmp_path):
        dataset = make_project(tmp_path, **options)
        change_settings(dataset, {"retraining": {"magicnet": {"blending_start": 0, "statistics_window": 1}}})
        fill_store(dataset)
        plans = {**json.loads(dataset.paths.plans_file.read_text(encoding="utf-8")), "continue_training": False}
        trainer_class: Any = find_trainer("nnUNetTrainerSFR_MagicNet")
        trainer = trainer_class(plans, dataset.paths.configuration, "all", dict(dataset.dataset_json), CPU)
        train_two_steps(trainer)
        assert trainer.grid.num_cubes > 1
        assert trainer.grid.patch_size == tuple(trainer.configuration_manager.patch_size)
        # the second step has blended: its window is one iteration long
        logits = torch.randn(2, trainer.label_manager.num_segmentation_heads, *trainer.grid.patch_size)
        target = next(trainer.dataloader_train)["labelled"]["target"][0]
        assert trainer._pseudo_label(logits, -logits).shape[1] == target.shape[1] == target_channels


def test_it_trains_without_deep_supervision(make_trainer: TrainerFactory) -> None:
    """As in nnU-Net's trainer variants that switch it off: outputs and targets are tensors and not lists."""
    trainer = make_trainer("nnUNetTrainerSFR_MagicNet")
    trainer.enable_deep_supervision = False
    train_two_steps(trainer)


# --- refusals ---


def test_a_plan_that_cannot_be_cut_is_refused(make_trainer: TrainerFactory, project: SFRDataset) -> None:
    # the tiny network has a stride of 4: the whole patch is one voxel at the bottleneck
    edit_plan(project, lambda configuration: configuration.update(patch_size=[4, 4, 4]))
    with pytest.raises(SystemExit, match=r"^error: a patch of 4x4x4 voxels is 1x1x1 at the bottleneck") as error:
        make_trainer("nnUNetTrainer_MagicNet").initialize()
    assert "plan a larger patch or choose another method" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_without_encoder_and_decoder_is_refused(make_trainer: TrainerFactory) -> None:
    class Flat(nn.Conv3d):
        pass

    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, inputs: int, outputs: int, deep_supervision: bool
    ) -> nn.Module:
        return Flat(inputs, outputs, 3)

    trainer = make_trainer("nnUNetTrainer_MagicNet")
    trainer.build_network_architecture = build_network_architecture
    message = "^error: MagicNet needs a network with an encoder and a decoder, Flat has not$"
    with pytest.raises(SystemExit, match=message):
        trainer.initialize()
