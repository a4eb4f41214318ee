"""In which precision an image encoder runs where no gradient is needed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from nnunet_sfr.devices import low_precision


def inference_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the hardware computes in it, None (float32) elsewhere: the range of float16 is too small."""
    return torch.bfloat16 if low_precision(device) is torch.bfloat16 else None


def inference_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to :func:`inference_dtype`; in float32 it switches an autocast around it off."""
    dtype = inference_dtype(device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
