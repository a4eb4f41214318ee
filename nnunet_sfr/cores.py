"""How many processes nnU-Net should start where the user has not said: as many as there are cores for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from nnunet_sfr.errors import UserError

AUGMENTATION, ALL_ELSE = "nnUNet_n_proc_DA", "nnUNet_def_n_proc"
"""nnU-Net's variables: workers that augment a training's patches (0: none), and processes of everything else."""

NNUNETS_WORKERS, NNUNETS_PROCESSES = 12, 8
"""What nnU-Net takes where they are not set, whatever the machine has."""

FEW_CORES = 2
"""With so few, a worker takes from the training what it gives."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Cores that this process may use: its affinity, and on Linux the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        return cores


def require_numbers(environment: Mapping[str, str]) -> None:
    """Refuse values of nnU-Net's variables with which nnU-Net cannot be imported.

    Args:
        environment: of this process.

    Raises:
        UserError: one of them is no whole number, or there is no process for nnU-Net's work.
    """
    for name, least in ((AUGMENTATION, 0), (ALL_ELSE, 1)):
        value = environment.get(name)
        if value is not None and not (value.strip().isdecimal() and int(value) >= least):
            raise UserError(f"{name} is {value!r}: export {name}=<whole number from {least} on>, or unset {name}")


def choose_processes(environment: MutableMapping[str, str]) -> str:
    """Set nnU-Net's variables that are not set, if what nnU-Net takes by itself is more than there are cores for.

    Args:
        environment: to change; of this process before nnU-Net is imported, or of one that is to be started.

    Returns:
        What was set and why, in a line; empty if nothing was.
    """
    cores = available_cores()
    fitting = {
        AUGMENTATION: 0 if cores <= FEW_CORES else min(NNUNETS_WORKERS, cores - 1),
        ALL_ELSE: min(NNUNETS_PROCESSES, cores),
    }
    nnunets = {AUGMENTATION: NNUNETS_WORKERS, ALL_ELSE: NNUNETS_PROCESSES}
    chosen = {
        name: str(number) for name, number in fitting.items() if name not in environment and number < nnunets[name]
    }
    environment.update(chosen)
    if not chosen:
        return ""
    settings = " ".join(f"{name}={value}" for name, value in chosen.items())
    return f"{settings} for {cores} {'core' if cores == 1 else 'cores'} (export your own to have others)"
