"""Time and peak memory of a training step, measured in processes of their own (:func:`in_fresh_process`)."""

from __future__ import annotations

import argparse
import gc
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from benchmarks.options import workload_of
from benchmarks.project import environment, open_project, temporary_project
from nnunet_sfr.devices import resolve_device
from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers.mean_teacher import nnUNetTrainerSFR_MT
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer

TRAINERS: tuple[Any, Any] = (nnUNetTrainer, nnUNetTrainerSFR_MT)
"""The stock trainer, which is the measure, and ours."""

FOR_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "KINETO_LOG_LEVEL": "99",
}
"""Environment of the processes that measure memory.

glibc keeps freed memory for later, in amounts that depend on the order of requests, and that would count as held. With
these variables, read when a process starts, each block from 64 KiB is mapped by itself and goes back when it is freed.
That costs time, so the time is measured without. The last variable silences the profiler.
"""

MEMORY_STEPS = 3
"""The first step makes the optimiser's momentum; from the second on the peak is that of a long training."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes.

    Args:
        tensors: what torch's allocator had handed out: weights, gradients, momentum, activations, patches.
        added: what the process took from the machine for the training: on the CPU its resident memory less that of the
            same process without trainer, on CUDA what torch reserved.
        resident: the whole process, Python and libraries included; None where the system does not tell it, and on CUDA.
    """

    tensors: int
    added: int | None
    resident: int | None


class TrainingStep:
    """A trainer, ready to train, and random patches; each call is one step.

    Args:
        trainer_class: nnUNetTrainer or a subclass; the data set is the one of :mod:`benchmarks.project`.
        device: where to train.
    """

    def __init__(self, trainer_class: Any, device: torch.device) -> None:
        dataset = open_project()
        plans = {**dataset.plans_manager.plans, "continue_training": False}
        # nnU-Net greets every trainer with its citation
        with redirect_stdout(io.StringIO()):
            self.trainer = trainer_class(plans, dataset.paths.configuration, "all", dataset.dataset_json, device)
            self.trainer.initialize()
        self.trainer.network.train()
        self.batch = random_batch(self.trainer)

    def __call__(self) -> None:
        self.trainer.train_step(self.batch)
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()


def random_batch(trainer: Any) -> dict[str, Any]:
    """What the data loaders would give the trainer: n patches, or n labelled and n unlabelled ones."""
    if isinstance(trainer, SemiSupervisedTrainer):
        return {"labelled": _random_patches(trainer), "unlabelled": _random_patches(trainer)}
    return _random_patches(trainer)


def _random_patches(trainer: Any) -> dict[str, Any]:
    patch_size = trainer.configuration_manager.patch_size
    classes = len(trainer.label_manager.all_labels)
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        shape = [round(length * factor) for length, factor in zip(patch_size, scale, strict=True)]
        targets.append(torch.randint(classes, (trainer.batch_size, 1, *shape), dtype=torch.int16))
    return {"data": torch.randn(trainer.batch_size, trainer.num_input_channels, *patch_size), "target": targets}


def in_fresh_process(function: Callable[..., Result], *arguments: Any, variables: Mapping[str, str]) -> Result:
    """Call a function in a new Python process that starts with these environment variables.

    Raises:
        UserError: the process had too little memory.
    """
    # spawn and not fork: a fork starts with the parent's memory and threads, and does not read variables again
    with environment(variables), ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, torch.OutOfMemoryError):
            raise UserError(
                "a measuring process ended, most likely for want of memory; choose a smaller --patch or --batch-size"
            ) from None


def measure(
    trainers: Sequence[Any], options: argparse.Namespace, call: Callable[..., Any]
) -> tuple[list[list[list[float]]], list[Memory]]:
    """Time and peak memory of a step of each trainer, on the workload of the command line.

    Args:
        trainers: nnUNetTrainer or subclasses.
        options: of :mod:`benchmarks.options`.
        call: as :func:`in_fresh_process`.

    Returns:
        seconds of single steps by trainer and turn, and memory by trainer.
    """
    where = (options.device, options.threads)
    with temporary_project(workload_of(options)):
        print("Timing ...", file=sys.stderr)
        seconds = call(measure_time, trainers, *where, options.repeats, options.warmup, options.steps, variables={})
        memory = []
        for trainer in trainers:
            print(f"Peak memory of {trainer.__name__} ...", file=sys.stderr)
            memory.append(call(measure_memory, trainer, *where, variables=FOR_MEMORY))
    return seconds, memory


def measure_time(
    trainers: Sequence[Any], device: str, threads: int, repeats: int, warmup: int, steps: int
) -> list[list[list[float]]]:
    """Seconds of single steps, by trainer and turn.

    The trainers take turns, so that a machine that slows down or speeds up does so for all.
    """
    training_steps = [TrainingStep(trainer, _prepare(device, threads)) for trainer in trainers]
    seconds: list[list[list[float]]] = [[] for _ in trainers]
    # no bar where standard error is a file
    with tqdm(total=repeats * len(trainers) * (warmup + steps), desc="Timing", unit="step", disable=None) as bar:
        for _ in range(repeats):
            for step, of_trainer in zip(training_steps, seconds, strict=True):
                all_steps = [_timed(step, bar) for _ in range(warmup + steps)]
                of_trainer.append(all_steps[warmup:])
    return seconds


def measure_memory(trainer_class: Any, device: str, threads: int) -> Memory:
    """Peak memory of a few steps; to be called in a process of its own."""
    torch_device = _prepare(device, threads)
    if torch_device.type == "cuda":
        return _memory_on_cuda(TrainingStep(trainer_class, torch_device))
    # a first training, thrown away: what libraries set up once per process is no cost of the second
    _train(TrainingStep(trainer_class, torch_device))
    gc.collect()
    _forget_resident_peak()
    before = _resident("VmRSS")
    _train(TrainingStep(trainer_class, torch_device))
    peak = _resident("VmHWM")
    added = max(peak - before, 0) if peak is not None and before is not None else None
    # last, since the profiler's own records fill the process
    return Memory(tensors=_tensor_peak_on_cpu(trainer_class), added=added, resident=peak)


def _prepare(device: str, threads: int) -> torch.device:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # as nnU-Net's run_training sets it
    torch.backends.cudnn.benchmark = True
    return resolve_device(device)


def _timed(step: TrainingStep, bar: Any) -> float:
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    bar.update()
    return seconds


def _train(step: TrainingStep) -> None:
    for _ in range(MEMORY_STEPS):
        step()


def _memory_on_cuda(step: TrainingStep) -> Memory:
    # the first steps hold the workspaces of cuDNN's search for the fastest algorithms too, which a training frees
    _train(step)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _train(step)
    return Memory(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), resident=None)


def _tensor_peak_on_cpu(trainer_class: Any) -> int:
    """The profiler sees every block that torch's CPU allocator hands out or takes back while it runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _train(TrainingStep(trainer_class, torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(file))
        events: Sequence[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return max(int(event["args"]["Total Allocated"]) for event in events if event["name"] == "[memory]")


def _forget_resident_peak() -> None:
    """Set Linux's VmHWM back to the present size; where that is not allowed, the peak so far stays a lower bound."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int | None:
    """VmRSS (now) or VmHWM (peak) of this process in bytes; None where there is no /proc."""
    with suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    return None
