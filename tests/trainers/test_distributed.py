"""Two ranks train as one: gloo on the CPU in two processes, with nnU-Net's own DDP code.

Starting two processes costs more than all that they do here, so one pair goes through every check and saves what it
saw; the tests look at that.
"""

from __future__ import annotations

import copy
import datetime
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet
from torch import distributed, nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.labelling.filling import label_pool
from nnunet_sfr.trainers import epoch_log, magicnet, self_training
from nnunet_sfr.trainers.cubes import CubeGrid
from nnunet_sfr.trainers.distributed import average_gradients, broadcast, mean_over_ranks
from nnunet_sfr.trainers.methods import METHODS
from tests.stopped_runs import resume, train_until_killed
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, build_trainer, change_settings, nnunet_folders
from tests.trainers.later_rounds import HIGH, LOW, finish_the_round_before

CPU = torch.device("cpu")
RANKS = (0, 1)
DEADLINE = 1200.0
"""Seconds for the pair of processes, which need 40 on two idle cores; a deadlock fails here."""
GLOO_TIMEOUT = datetime.timedelta(seconds=300)

MIX_WITHIN_A_RANK = ("ICT", "BCP")
"""Methods whose batch of one mixes with the labelled patch of its rank, so that no joined batch has the same loss."""
JOINED = [name for name in METHODS if name not in (*MIX_WITHIN_A_RANK, "ST")]
LATER_ROUND = "nnUNetTrainerSFRPlus_MT"
"""One of the two ranks' patches is of low confidence: one rank has a pseudo-label loss, the other has not."""
NAMES = [
    *(f"{prefix}_{method}" for method in JOINED for prefix in ("nnUNetTrainer", "nnUNetTrainerSFR")),
    LATER_ROUND,
]
RESUMED = "nnUNetTrainerSFR_MagicNet"
RELABELS = "nnUNetTrainer_ST"

SETTINGS: dict[str, Any] = {
    "pseudo_label_weight": 0.5,
    "consistency_weight": 3.0,
    "teacher_noise_std": 0.0,  # or every rank has a noise of its own
    "magicnet": {"blending_start": 0, "statistics_window": 2},
    "uamt": {"dropout": 0.0},  # for the same reason
    "bcp": {"pretraining_share": 0.0},
}

Results = dict[str, Any]


# --- what both the two ranks and the one process of the tests do ---


def build(name: str) -> Any:
    """A trainer on the CPU, where nnU-Net expects a GPU of every rank."""
    dataset = open_dataset(NAME, "3d_fullres", PLANS)
    trainer = build_trainer(dataset, name)
    trainer.device, trainer.grad_scaler = CPU, None
    return trainer


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """nnU-Net wraps for the GPU of the rank, and draws plots that take longer than the training."""
    with ExitStack() as stack:
        for target, name, replacement in (
            (nnunet, "DDP", lambda network, device_ids: DistributedDataParallel(network)),
            (MetaLogger, "plot_progress_png", lambda *_: None),
            (epoch_log, "plot_losses", lambda *_: None),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


def permutation_of(ranks: Sequence[int], grid: CubeGrid) -> torch.Tensor:
    """Each rank mixes its labelled patch with its unlabelled one; the joined batch has all labelled patches first."""
    joined = torch.empty(2 * len(ranks), *grid.cubes_per_axis, dtype=torch.int64)
    for place, rank in enumerate(ranks):
        own = torch.rand(2, *grid.cubes_per_axis, generator=torch.Generator().manual_seed(rank)).argsort(dim=0)
        joined[place :: len(ranks)] = own * len(ranks) + place
    return joined


def gradients(trainer: Any, start: Results, ranks: Sequence[int], *, batch_dice: bool) -> Results:
    """The gradients with which the optimiser would step, on the ranks' items of the batch.

    Args:
        trainer: initialised.
        start: weights of student, teacher and head, and a batch of two labelled and two unlabelled patches.
        ranks: one of them, or both for the joined batch.
        batch_dice: nnU-Net's Dice over the whole batch, gathered from all ranks, as its 2D plans have it.
    """
    trainer.student.load_state_dict(start["student"])
    trainer.teacher.load_state_dict(start["teacher"])
    trainer.iteration = 2
    # nnU-Net's last weight is 0, and with DDP 1e-6; equal ones can be compared
    trainer.loss.weight_factors = (0.75, 0.25)
    trainer.loss.loss.dc.batch_dice = batch_dice
    if type(trainer).__name__ == LATER_ROUND:
        trainer.first_iteration, trainer.low_confidence = trainer.iteration, frozenset([LOW])
        trainer.pseudo_label_loss.loss.weight_factors = (0.75, 0.25)
        trainer.pseudo_label_loss.loss.loss.dc.batch_dice = batch_dice
    if "MagicNet" in type(trainer).__name__:
        trainer.extra_modules.load_state_dict(start["head"])
        trainer.dice_loss.dc.batch_dice = batch_dice
        trainer.class_statistics.load_state_dict(start["class_statistics"])
    batch = {
        stream: {
            "data": values["data"][list(ranks)],
            "target": [target[list(ranks)] for target in values["target"]],
            "keys": [values["keys"][rank] for rank in ranks],
        }
        for stream, values in start["batch"].items()
    }
    optimizers = [trainer.optimizer, *([trainer.extra_optimizer] if trainer.extra_optimizer else [])]
    with ExitStack() as stack:
        for optimizer in optimizers:
            stack.enter_context(mock.patch.object(optimizer, "step"))
        stack.enter_context(
            mock.patch.object(magicnet, "draw_permutation", lambda size, grid, device: permutation_of(ranks, grid))
        )
        terms = trainer.train_step(batch)
    modules = {"student": trainer.student, "extra_modules": trainer.extra_modules}
    return {
        "terms": {name: float(value) for name, value in terms.items()},
        "gradients": {
            f"{module_name}.{name}": None if parameter.grad is None else parameter.grad.clone()
            for module_name, module in modules.items()
            for name, parameter in module.named_parameters()
        },
    }


def state_of(trainer: Any) -> Results:
    """What the ranks must agree on, as it is now."""
    state = {
        "student": trainer.student.state_dict(),
        "teacher": trainer.teacher.state_dict(),
        "extra_modules": trainer.extra_modules.state_dict(),
        "method": trainer.method_state(),
        "iteration": trainer.iteration,
    }
    return copy.deepcopy(state)


# --- what a rank does ---


def run_rank(rank: int, folder: Path) -> None:
    """Everything, in one process; nnU-Net's variables point to the project."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=len(RANKS),
        timeout=GLOO_TIMEOUT,
    )
    start = torch.load(folder / "start.pt", weights_only=False)
    results: Results = {"helpers": use_the_helpers(rank)}
    with on_the_cpu():
        for name in NAMES:
            trainer = build(name)
            results[name] = three_steps(trainer)
            for batch_dice in (False, True):
                results[name][batch_dice] = gradients(trainer, start, [rank], batch_dice=batch_dice)
        for method in MIX_WITHIN_A_RANK:
            results[f"nnUNetTrainerSFR_{method}"] = three_steps(build(f"nnUNetTrainerSFR_{method}"))
        results["resumed"] = die_and_resume()
        results["relabelled"] = label_the_pool()
    torch.save(results, folder / f"rank_{rank}.pt")
    distributed.destroy_process_group()


def use_the_helpers(rank: int) -> Results:
    module = nn.BatchNorm1d(1)
    module.weight.data.fill_(rank + 5.0)
    module.running_mean.fill_(rank + 7.0)  # type: ignore[union-attr]
    broadcast(module)
    module.weight.grad = torch.tensor([4.0 * rank])
    module.bias.grad = torch.tensor([8.0]) if rank == 1 else None
    average_gradients(module)
    assert module.bias.grad is not None
    return {
        "broadcast": [module.weight.item(), module.running_mean.item()],  # type: ignore[union-attr]
        "gradients": [module.weight.grad.item(), module.bias.grad.item()],
        "mean": mean_over_ranks(torch.tensor(3.0 * rank)).item(),
    }


def three_steps(trainer: Any) -> Results:
    """Three steps on patches from the real loaders."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batches = [next(trainer.dataloader_train) for _ in range(3)]
    for batch in batches:
        trainer.train_step(batch)
    return {
        "batch_size": trainer.batch_size,
        "seed": torch.initial_seed(),
        "images": {stream: torch.stack([batch[stream]["data"] for batch in batches]) for stream in batches[0]},
        "state": state_of(trainer),
    }


def die_and_resume() -> Results:
    """A run of two epochs of two steps that is killed in the second, and continues from its checkpoint to its end."""
    killed = build(RESUMED)
    with mock.patch.object(torch, "save", wraps=torch.save) as save:
        train_until_killed(killed, epoch=1)
        distributed.barrier()  # the first rank may still be writing the checkpoint; in a new process it is not
        resumed = resume(lambda: build(RESUMED))
        loaded = state_of(resumed)
        loaded_optimizer = copy.deepcopy(resumed.extra_optimizer.state_dict())
        resumed.run_training()
    return {
        "seed": torch.initial_seed(),
        "killed": state_of(killed),
        "killed_optimizer": killed.extra_optimizer.state_dict(),
        "loaded": loaded,
        "loaded_optimizer": loaded_optimizer,
        "state": state_of(resumed),
        "epoch": resumed.current_epoch,
        "saved": save.call_count,
        "log": {
            term: resumed.logger.local_logger.my_fantastic_logging[term]
            for term in (*resumed.logged_terms, "train_losses", "val_losses", "mean_fg_dice")
        },
        "folder": resumed.output_folder,
    }


def label_the_pool() -> Results:
    """Self-training of two epochs of two steps, which labels the pool between them."""
    trainer = build(RELABELS)
    with mock.patch.object(self_training, "label_pool", wraps=label_pool) as labelling:
        trainer.run_training()
    store = trainer.unlabelled_dataset().store
    return {
        "state": state_of(trainer),
        "rounds": trainer.logger.local_logger.my_fantastic_logging["round"],
        "labelled_here": [case for call in labelling.call_args_list for case in call.args[-1]],
        "labels": {identifier: store.read_labels(identifier) for identifier in store.identifiers()},
    }


# --- starting the pair ---


@pytest.fixture(scope="module")
def root(planned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of our own, with nnU-Net's variables set to it."""
    folder = tmp_path_factory.mktemp("distributed")
    shutil.copytree(planned_root, folder, dirs_exist_ok=True)
    with nnunet_folders(folder):
        dataset = dataset_of_plan()
        change_settings(dataset, {"retraining": SETTINGS})
        finish_the_round_before(dataset, LATER_ROUND)
        yield folder


def dataset_of_plan() -> SFRDataset:
    return open_dataset(NAME, "3d_fullres", PLANS)


@pytest.fixture(scope="module")
def start(root: Path) -> Results:
    """Where the gradients are compared: a batch, a student, a teacher that says something else, a head."""
    trainer = build("nnUNetTrainerSFR_MagicNet")
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    while sorted(batch["unlabelled"]["keys"]) != [LOW, HIGH]:
        batch = next(trainer.dataloader_train)
    generator = torch.Generator().manual_seed(0)
    for module in (trainer.student, trainer.teacher):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return {
        "batch": {
            stream: {"data": values["data"], "target": list(values["target"]), "keys": list(values["keys"])}
            for stream, values in batch.items()
        },
        "student": trainer.student.state_dict(),
        "teacher": trainer.teacher.state_dict(),
        "head": trainer.extra_modules.state_dict(),
        "class_statistics": {
            "counts": torch.zeros(2, dtype=torch.int64),
            "iterations": 0,
            "finished": torch.tensor([900, 300]),
            "finished_windows": 1,
        },
    }


@pytest.fixture(scope="module")
def ranks(root: Path, start: Results) -> list[Results]:
    """What each of the two ranks saw."""
    torch.save(start, root / "start.pt")
    context: Any = start_processes(run_rank, args=(root,), nprocs=len(RANKS), join=False, start_method="spawn")
    end = time.monotonic() + DEADLINE
    try:
        while not context.join(timeout=max(0.0, end - time.monotonic())):
            if time.monotonic() >= end:
                pytest.fail(f"the two ranks are not done after {DEADLINE:g} s: do they wait for each other?")
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(root / f"rank_{rank}.pt", weights_only=False) for rank in RANKS]


def assert_equal(first: Any, second: Any, where: str = "") -> None:
    """To the last bit, in nested dictionaries and lists of tensors and numbers."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


# --- the checks ---


def test_helpers_make_ranks_agree(ranks: list[Results]) -> None:
    """Parameters and buffers of the first rank; a gradient that a rank does not have counts as zero."""
    expected = {"broadcast": [5.0, 7.0], "gradients": [2.0, 4.0], "mean": 1.5}
    assert ranks[0]["helpers"] == ranks[1]["helpers"] == expected


def test_one_process_is_its_own_mean() -> None:
    value = torch.tensor([1.0, 2.0])
    assert mean_over_ranks(value) is value


@pytest.mark.parametrize("name", [*NAMES, *(f"nnUNetTrainerSFR_{method}" for method in MIX_WITHIN_A_RANK)])
def test_ranks_agree_after_three_steps(name: str, ranks: list[Results]) -> None:
    """The plan's batch of two is one patch for each rank, another one; student, teacher and head are the same."""
    first, second = (rank[name] for rank in ranks)
    assert first["batch_size"] == second["batch_size"] == 1
    # the ranks' different shares of foreground would make the patches differ with one seed too
    assert first["seed"] != second["seed"]
    for stream in ("labelled", "unlabelled"):
        for step in range(3):
            assert not torch.equal(first["images"][stream][step], second["images"][stream][step])
    state = first["state"]
    if "MagicNet" in name:
        # the unfinished window is each rank's own until it is finished
        unfinished = [rank["state"]["method"]["class_statistics"].pop("counts") for rank in (first, second)]
        statistics = state["method"]["class_statistics"]
        assert (statistics["iterations"], statistics["finished_windows"]) == (1, 1)
        voxels = first["images"]["unlabelled"][0].numel()
        assert [counts.sum() for counts in unfinished] == [voxels, voxels]
        assert statistics["finished"].sum() == 2 * 2 * voxels, "two ranks, two iterations"
        assert state["extra_modules"]
    assert_equal(state, second["state"])
    assert state["iteration"] == (4 if name == LATER_ROUND else 0) + 3
    assert any(not torch.equal(state["student"][key], state["teacher"][key]) for key in state["student"])


@pytest.mark.parametrize("batch_dice", [False, True], ids=["item_dice", "batch_dice"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_joined_batch(
    name: str, batch_dice: bool, ranks: list[Results], start: Results
) -> None:
    """Also those of passes without DDP's wrapper (MagicNet's cubes), and of the passes before the last."""
    with on_the_cpu():
        trainer = build(name)
        trainer.initialize()
        one = gradients(trainer, start, RANKS, batch_dice=batch_dice)
    first, second = (rank[name][batch_dice] for rank in ranks)
    assert_equal(first["gradients"], second["gradients"])
    norm = torch.stack([value.norm() for value in one["gradients"].values()]).norm()
    assert 0.1 < norm < 12, "clipped gradients would hide a factor"
    for parameter, expected in one["gradients"].items():
        torch.testing.assert_close(first["gradients"][parameter], expected, rtol=1e-3, atol=1e-5 * norm.item())
    for term, value in one["terms"].items():
        assert value != 0, term
        mean = (first["terms"][term] + second["terms"][term]) / 2
        assert mean == pytest.approx(value, rel=1e-4), term
    assert first["terms"] != second["terms"], "the ranks must have different patches"
    if name == LATER_ROUND:
        assert sorted(rank["terms"]["low_confidence_share"] for rank in (first, second)) == [0, 1]


def test_a_killed_run_goes_on_and_ends(ranks: list[Results]) -> None:
    """Validation epochs included; one rank writes, both load, and both are where they were."""
    first, second = (rank["resumed"] for rank in ranks)
    own = [rank["killed"]["method"]["class_statistics"] for rank in (first, second)]
    assert (own[0]["iterations"], own[0]["finished_windows"]) == (0, 1)
    for rank in (first, second):
        assert_equal(rank["loaded"], rank["killed"])
        assert rank["loaded_optimizer"]["state"]
        assert_equal(rank["loaded_optimizer"]["state"], rank["killed_optimizer"]["state"])
        assert rank["loaded"]["iteration"] == 2
        assert (rank["epoch"], rank["state"]["iteration"]) == (2, 4)
    assert_equal(first["state"], second["state"])
    assert_equal(first["log"], second["log"])
    seeds = {rank[run]["seed"] for rank in ranks for run in (RESUMED, "resumed")}
    assert len(seeds) == 4, "a resumed run must not draw again what a rank drew before"
    assert {len(values) for values in first["log"].values()} == {2}
    changed = [
        key
        for key, value in first["state"]["student"].items()
        if not torch.equal(value, first["loaded"]["student"][key])
    ]
    assert changed, "the resumed run must have trained"
    assert first["saved"] > 0
    assert second["saved"] == 0
    names = {file.name for file in Path(first["folder"]).glob("*.pth")}
    assert names == {"checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_teacher.pth"}
    final = torch.load(Path(first["folder"], "checkpoint_final.pth"), weights_only=False)
    assert_equal(dict(final["network_weights"]), dict(second["state"]["student"]))
    teacher = torch.load(Path(first["folder"], "checkpoint_teacher.pth"), weights_only=False)
    assert_equal(dict(teacher["network_weights"]), dict(second["state"]["teacher"]))


def test_ranks_share_the_labelling_of_the_pool(ranks: list[Results]) -> None:
    """Each labels its part, and both continue with all labels."""
    first, second = (rank["relabelled"] for rank in ranks)
    assert first["rounds"] == second["rounds"] == [0, 1]
    assert [rank["labelled_here"] for rank in (first, second)] == [["unlabelled_00"], ["unlabelled_01"]]
    for rank in (first, second):
        assert list(rank["labels"]) == ["unlabelled_00", "unlabelled_01"]
    for identifier, labels in first["labels"].items():
        assert (labels == second["labels"][identifier]).all()
    assert_equal(first["state"], second["state"])
    assert first["state"]["iteration"] == 4
