"""Maps of voxel confidence: how probable the label of each voxel is, beside the label maps of a pseudo-label store.

They are optional, one file a case: ``voxel_confidence/<case>.b2nd`` in the folder of the store, (D, H, W) on the
preprocessed grid, uint8 with 255 for a probability of 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nnunet_sfr.data.b2nd_files import B2ND, write_b2nd

FOLDER = "voxel_confidence"
CERTAIN = 255
"""What stands for a probability of 1."""


def voxel_confidence_file(store: Path, identifier: str) -> Path:
    """Where the map of a case lies.

    Args:
        store: folder of a pseudo-label store.
        identifier: of the case.
    """
    return store / FOLDER / f"{identifier}{B2ND}"


def write_voxel_confidence(
    store: Path, identifier: str, probabilities: np.ndarray | None, *, patch_size: Iterable[int]
) -> None:
    """Replace the map of a case; without probabilities it is removed, so that none stands beside newer labels.

    Args:
        store: folder of a pseudo-label store.
        identifier: of the case.
        probabilities: (D, H, W) between 0 and 1, of each voxel's label.
        patch_size: of nnU-Net's network, which the compression blocks follow.
    """
    file = voxel_confidence_file(store, identifier)
    file.unlink(missing_ok=True)
    if probabilities is None:
        return
    file.parent.mkdir(exist_ok=True)
    values = np.rint(np.clip(probabilities, 0.0, 1.0) * CERTAIN).astype(np.uint8)
    write_b2nd(values, file, patch_size=patch_size)
