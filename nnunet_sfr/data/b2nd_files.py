"""Arrays in nnU-Net's ``.b2nd`` format, read and written as nnU-Net does it.

Importing this imports neither nnU-Net nor blosc2, which take seconds, nor NumPy, which sfr_run does without.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_sfr.atomic import replacing
from nnunet_sfr.errors import UserError

if TYPE_CHECKING:
    import numpy as np

B2ND = ".b2nd"
"""How the name of such a file ends."""


def open_b2nd(file: Path) -> Any:
    """A blosc2 array, opened as nnU-Net opens its own: memory-mapped (not on Windows) and on one thread.

    Raises:
        UserError: the file is missing or damaged.
    """
    import blosc2

    memory_map = {} if os.name == "nt" else {"mmap_mode": "r"}
    try:
        return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **memory_map)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "missing" if not file.exists() else f"damaged ({error})"
        raise UserError(
            f"{file}: {reason}; run sfr_plan_and_preprocess for images, sfr_pseudolabel --overwrite for pseudo-labels"
        ) from None


def write_b2nd(array: np.ndarray, file: Path, *, patch_size: Iterable[int]) -> None:
    """Write an array as nnU-Net writes its segmentations; the file appears whole.

    Args:
        array: (1, D, H, W), or (D, H, W).
        file: to write, which ends in :data:`B2ND`.
        patch_size: of nnU-Net's network, which the compression blocks follow.
    """
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    shape = (1, *array.shape[-3:])
    block, chunk = comp_blosc2_params(shape, tuple(patch_size), bytes_per_pixel=array.itemsize)
    skipped = len(shape) - array.ndim
    with replacing(file) as temporary:
        nnUNetDatasetBlosc2.save_seg(
            np.ascontiguousarray(array),
            str(temporary.with_suffix("")),
            chunks_seg=chunk[skipped:],
            blocks_seg=block[skipped:],
        )
