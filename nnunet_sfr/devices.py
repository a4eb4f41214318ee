"""Where a stage computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from nnunet_sfr.errors import UserError


def resolve_device(name: str) -> torch.device:
    """A torch device from the value of ``-device``.

    Args:
        name: cuda, cpu, mps, or auto for the best that there is.

    Raises:
        UserError: the machine does not have it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"-device {name}: torch finds no such device on this machine; use -device cpu")
    return torch.device(name)


def low_precision(device: torch.device) -> torch.dtype | None:
    """The type that SAM computes in on a device, where not in full precision: nnU-Net's rule, CUDA alone.

    bfloat16 where the hardware has it (not where CUDA emulates it), float16 elsewhere.
    """
    if device.type != "cuda":
        return None
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if native else torch.float16


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision in :func:`low_precision`, or nothing."""
    dtype = low_precision(device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
