"""Cores, and the device that ``-device auto`` takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nnunet_sfr.command_lines import AUTO
from nnunet_sfr.cores import available_cores
from nnunet_sfr.devices import low_precision, resolve_device
from nnunet_sfr.doctor.findings import Finding, note, ok
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import DEFAULT_MODEL
from nnunet_sfr.wording import gib

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may use: version 2 and version 1 of its control groups."""


def check_cores() -> list[Finding]:
    """Cores of the machine, those that this process may use, and torch's threads."""
    cores = os.cpu_count() or 1
    allowed = available_cores()
    share = f" ({allowed} of them for this process)" if allowed < cores else ""
    memory = main_memory()
    ram = "" if memory is None else f", {gib(memory)} of main memory"
    threads = torch.get_num_threads()
    return [ok("cores", f"{cores}{share}, torch uses {threads} thread{'' if threads == 1 else 's'}{ram}")]


def check_device() -> list[Finding]:
    """What there is to compute on, and in which precision SAM computes there."""
    device = resolve_device(AUTO)
    if device.type == "cuda":
        names = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
        return [ok("device", f"cuda: {'; '.join(names)}")]
    if device.type == "mps":
        return [ok("device", f"mps: {gib(device_memory(device) or 0)} to use, single precision")]
    built = "" if torch.version.cuda is None else f" (torch is built for CUDA {torch.version.cuda} and finds no GPU)"
    remedy = f"plan with -pl ExperimentPlannerCPU and let SAM be {DEFAULT_MODEL}; nnU-Net's commands want -device cpu"
    precision = "single precision" if low_precision(device) is None else "SAM in bfloat16"
    return [note("device", f"CPU alone, {precision}{built}", remedy)]


def check_requested_device(name: str) -> list[Finding]:
    """Nothing, if the machine has the device that was asked for.

    Args:
        name: after ``-device``.

    Raises:
        UserError: it does not have it.
    """
    resolve_device(name)
    return []


def device_to_use(name: str) -> torch.device:
    """The device that was asked for, or the best that there is where :func:`check_requested_device` has a problem.

    Args:
        name: after ``-device``.
    """
    try:
        return resolve_device(name)
    except UserError:
        return resolve_device(AUTO)


def device_memory(device: torch.device) -> int | None:
    """Bytes that a device has in all; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return main_memory()


def main_memory() -> int | None:
    """Bytes of main memory, or those that the container may use where they are fewer; None where the system does not
    tell."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limits = [_memory_limit(file) for file in _MEMORY_LIMITS]
    return min([machine, *(limit for limit in limits if limit is not None)])


def _memory_limit(file: Path) -> int | None:
    """Bytes; None where the file is not there, or names no limit ("max")."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _describe_gpu(index: int) -> str:
    device = torch.device("cuda", index)
    native = low_precision(device) is torch.bfloat16
    precision = "bfloat16" if native else "float16 (no bfloat16 of its own)"
    return f"{torch.cuda.get_device_name(device)}, {gib(device_memory(device) or 0)}, {precision}"
