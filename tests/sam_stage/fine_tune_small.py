"""Fine-tune the small pre-trained SAM of the tests in single precision, in a process that a launcher started.

Arguments: data set and plans.
"""

from __future__ import annotations

import sys
from typing import cast
from unittest import mock

import torch

from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage import processes
from nnunet_sfr.sam_stage.finetuning import fine_tune
from tests.sam_stage.small_models import SMALL_PRETRAINED


def main() -> int:
    """Fine-tune the project that nnU-Net's variables point at."""
    torch.set_num_threads(1)
    cast(dict[str, SAMModel], MODELS)[SMALL_PRETRAINED.name] = SMALL_PRETRAINED
    name, plans = sys.argv[1:]
    try:
        with mock.patch.object(processes, "low_precision", return_value=None):
            fine_tune(open_dataset(name, "3d_fullres", plans), "all", torch.device("cpu"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
