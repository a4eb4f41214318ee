"""Fine-tuning on two processes equals one process on the joined batch, and waits for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import DistributedType, PartialState
from safetensors.torch import load_file
from torch import Tensor

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
from nnunet_sfr.sam_stage.processes import start_processes
from tests.patience import PATIENCE
from tests.tiny_project import change_settings

REPOSITORY = Path(__file__).resolve().parent.parent.parent


LAUNCHER = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")


def fine_tuned(project: SFRDataset, *launcher: str) -> subprocess.CompletedProcess[str]:
    """In processes of their own: accelerate keeps its first precision for as long as a process lives."""
    script = ["-m", "tests.sam_stage.fine_tune_small", project.paths.dataset_name, project.paths.plans_name]
    return subprocess.run(
        [sys.executable, *launcher, *script],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_two_processes_equal_one(pretrained_project: SFRDataset) -> None:
    """The whole command: views shared out, batches of four shared, Dice over both halves, gradients added up."""
    settings = {"iterations": 6, "batch_size": 4, "max_gradient_norm": 1.0, "validation_every": 3}
    change_settings(pretrained_project, {"fine_tuning": settings})
    project = open_dataset(pretrained_project.paths.dataset_name, "3d_fullres", pretrained_project.paths.plans_name)
    folder = project.paths.sam_stage("all")
    alone = fine_tuned(project)
    assert alone.returncode == 0, alone.stderr
    one = load_file(folder / FINAL_ADAPTER)
    for file in [*folder.iterdir(), *project.paths.sam_views.rglob("*.safetensors")]:
        file.unlink()
    finished = fine_tuned(project, *LAUNCHER)
    assert finished.returncode == 0, finished.stderr
    two = load_file(folder / FINAL_ADAPTER)
    assert two.keys() == one.keys()
    # attention does not feel the bias of its keys: their gradients are rounding errors, and Adam makes steps of them
    felt = {name: value for name, value in one.items() if not name.endswith("k_proj.bias")}
    distances = {name: float((two[name] - value).abs().max()) for name, value in felt.items()}
    # single precision adds up in another order; each of the steps moves a weight by up to the learning rate, 1e-3
    assert max(distances.values()) < 1e-4, max(distances, key=lambda name: distances[name])
    assert any(distances.values()), "it ran again"


def test_a_batch_that_cannot_be_shared_is_refused(pretrained_project: SFRDataset) -> None:
    change_settings(pretrained_project, {"fine_tuning": {"batch_size": 3}})
    finished = fine_tuned(pretrained_project, *LAUNCHER)
    assert finished.returncode != 0
    assert "error: fine_tuning.batch_size 3 cannot be shared by 2 processes" in finished.stderr


def test_processes_wait_a_day_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group of one process, as a launcher would start it."""
    monkeypatch.setattr(PartialState, "_shared_state", {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {"LOCAL_RANK": 0, "RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    # accelerate sets it, monkeypatch takes it back
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    try:
        assert start_processes(torch.device("cpu")).distributed_type == DistributedType.MULTI_CPU
        group: Any = torch.distributed.group.WORLD
        assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(days=1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("ignored", [0, 5])
def test_the_loss_of_a_shared_batch_is_that_of_the_joined_one(ignored: int) -> None:
    """Each half with the sums of the other added: same loss, and together the same gradient."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8)
    target = torch.randint(0, 3, (2, 8, 8))
    target[0, :ignored] = -1
    weights = {"ignore_index": -1, "cross_entropy_weight": 0.4, "dice_weight": 0.6}
    joined = logits.clone().requires_grad_()
    loss, _ = stitched_segmentation_loss(joined, target, **weights)  # type: ignore[arg-type]
    loss.backward()

    sums: list[list[Tensor]] = []
    for half in range(2):
        kept: list[Tensor] = []
        sums.append(kept)

        def keep(values: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(values.detach())
            return values

        share = slice(half, half + 1)
        stitched_segmentation_loss(logits[share], target[share], over_processes=keep, **weights)  # type: ignore[arg-type]
    gradients = []
    for half in range(2):
        others = iter(sums[1 - half])
        mine = logits[half : half + 1].clone().requires_grad_()
        shared, _ = stitched_segmentation_loss(
            mine,
            target[half : half + 1],
            over_processes=lambda values, others=others: values + next(others),  # type: ignore[misc]
            **weights,  # type: ignore[arg-type]
        )
        assert shared.item() == pytest.approx(loss.item(), rel=1e-6)
        shared.backward()
        assert mine.grad is not None
        gradients.append(mine.grad)
    assert joined.grad is not None
    torch.testing.assert_close(torch.cat(gradients), joined.grad, rtol=1e-5, atol=1e-8)
