"""Where a stage computes."""

from __future__ import annotations

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
