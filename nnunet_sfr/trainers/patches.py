"""A batch of patches, as the training step hands it to a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Patches:
    """A batch of one stream, on the device."""

    images: torch.Tensor
    """(n, channels, ...)"""
    targets: Any
    """A list of (n, 1, ...) label maps from full resolution down; one label map without deep supervision. With regions
    one channel for each of them."""
    identifiers: tuple[str, ...] = ()
    """Of the n cases that the patches are from; empty where they are not known."""
    voxel_confidence: torch.Tensor | None = None
    """(n, 1, ...) probability of each voxel's label, at full resolution; None where the stream does not deliver it."""

    def select_items(self, places: Sequence[int]) -> Patches:
        """Some of the patches, by their places in the batch."""
        return Patches(
            images=self.images[list(places)],
            targets=select_items(self.targets, places),
            identifiers=tuple(self.identifiers[place] for place in places) if self.identifiers else (),
            voxel_confidence=None if self.voxel_confidence is None else self.voxel_confidence[list(places)],
        )


def select_items(values: Any, places: Sequence[int]) -> Any:
    """Items of a batch (n, ...), or of every batch in a list, by their places.

    Args:
        values: a tensor (n, ...), or a list of them.
        places: of the items, from 0.
    """
    if isinstance(values, (list, tuple)):
        return [value[list(places)] for value in values]
    return values[list(places)]
