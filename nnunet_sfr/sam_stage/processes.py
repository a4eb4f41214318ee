"""Fine-tuning on several processes (``torchrun``, ``accelerate launch``) that share every batch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from nnunet_sfr.devices import low_precision
from nnunet_sfr.errors import UserError

_PRECISIONS = {None: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What accelerate calls them; with float16 it scales the loss."""


LONGEST_WAIT = timedelta(hours=24)
"""How long processes wait for one another. One validates while the others wait, and large cases take it longer than the
10 minutes after which PyTorch gives up; a process that dies ends the others at once, for the launcher ends them."""


def start_processes(device: torch.device) -> PartialState:
    """Connect the processes that the command was started with; with one, there is nothing to connect.

    Args:
        device: to compute on.
    """
    return PartialState(cpu=device.type == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=LONGEST_WAIT)


def make_accelerator(device: torch.device, batch_size: int) -> Accelerator:
    """Accelerate for a device, with as many processes as the command was started with.

    Args:
        device: to compute on.
        batch_size: examples of a step, over all processes together.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """
    start_processes(device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=_PRECISIONS[low_precision(device)])
    if batch_size % accelerator.num_processes:
        raise UserError(
            f"fine_tuning.batch_size {batch_size} cannot be shared by {accelerator.num_processes} processes; set it to "
            "a multiple in the SFR plan, or start fewer processes"
        )
    return accelerator


def sum_over_processes(accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    """A differentiable sum over processes; with one process, the tensor itself.

    Its backward pass adds up the gradients of all processes; DistributedDataParallel then divides by their number:
    together the gradient of one process with the joined batch.
    """
    if accelerator.num_processes == 1:
        return lambda sums: sums
    from torch.distributed.nn.functional import all_reduce

    return lambda sums: all_reduce(sums)
