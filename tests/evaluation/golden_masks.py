"""The masks that MedPy was asked about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.conftest import Golden


def golden_masks(vectors: Golden, case: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Prediction and truth of a case of ``metrics.npz``."""
    shape = tuple(vectors[f"{case}.shape"])
    prediction, truth = (
        np.unpackbits(vectors[f"{case}.{part}"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        for part in ("pred", "gt")
    )
    return prediction, truth
