"""What is said of a store that has been filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_sfr.confidence import MEASURES
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore


def summarise(store: PseudoLabelStore, identifiers: Sequence[str]) -> None:
    """Print the confidence, where there is one, and in which cases nothing was found."""
    records = {case: store.read_confidence(case) for case in identifiers}
    empty = sorted(case for case, record in records.items() if _is_empty(record))
    for name in ("flip_agreement", "foreground_mean_max_probability"):
        known = [value for value in map(MEASURES[name].value, records.values()) if value is not None]
        if known:
            print(f"{MEASURES[name].meaning}: {np.mean(known):.3f} (lowest {min(known):.3f})")
    if empty:
        print(f"no foreground in {len(empty)} of {len(identifiers)} cases: {', '.join(empty)}")


def _is_empty(record: Mapping[str, Any]) -> bool:
    return not any(voxels for label, voxels in record["class_voxels"].items() if label != "0")
