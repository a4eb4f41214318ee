"""Where a stage computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from nnunet_sfr.command_lines import AUTO
from nnunet_sfr.errors import UserError


def resolve_device(name: str) -> torch.device:
    """A torch device from the value of ``-device``.

    Args:
        name: cuda, cpu, mps, or auto for the best that there is.

    Raises:
        UserError: the machine does not have it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == AUTO:
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"-device {name}: torch finds no such device on this machine; use -device cpu")
    return torch.device(name)


def require_gpus(number: int) -> None:
    """Refuse more GPUs than torch finds.

    Args:
        number: after ``-num_gpus``; 1 is what there is, if only a CPU.

    Raises:
        UserError: there are fewer.
    """
    found = torch.cuda.device_count()
    if number > max(1, found):
        raise UserError(f"-num_gpus {number}: torch finds {found} on this machine; ask for no more than there are")


def device_for_nnunet() -> str:
    """The value of ``-device`` for nnU-Net's commands on this machine; ``auto`` where their default, CUDA, is there."""
    device = resolve_device(AUTO).type
    return AUTO if device == "cuda" else str(device)


def low_precision(device: torch.device) -> torch.dtype | None:
    """The type that SAM computes in on a device, where not in full precision.

    bfloat16 where the hardware has it (CUDA; processors with AVX512-BF16 or AMX), float16 on other CUDA devices. What
    only emulates bfloat16 would be slower than in full precision.
    """
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bfloat16() else None
    if device.type != "cuda":
        return None
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if native else torch.float16


@cache
def _cpu_has_bfloat16() -> bool:
    # torch before 2.10 does not tell: full precision is right everywhere
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision in :func:`low_precision`, or nothing."""
    dtype = low_precision(device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
