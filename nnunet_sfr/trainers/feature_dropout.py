"""Dropout of whole feature maps, put on a network of nnU-Net's from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nnunet_sfr.errors import UserError


class FeatureDropout:
    """Drops feature maps after the bottleneck and before the segmentation head of a U-Net, as UA-MT's V-Net does.

    It works through hooks, so the network keeps its modules and the names of its weights. It is on while the network
    trains, and in evaluation mode inside of :meth:`switched_on`.

    Args:
        network: with ``encoder.stages`` and ``decoder.stages``, as nnU-Net's U-Nets have them.
        probability: of dropping a map; the others are divided by 1 - probability.

    Raises:
        UserError: the network has no such stages.
    """

    def __init__(self, network: nn.Module, probability: float) -> None:
        self.probability = probability
        self._on = False
        for part in ("encoder", "decoder"):
            stages: Any = getattr(getattr(network, part, None), "stages", None)
            if not stages:
                raise UserError(
                    f"dropout needs a network with an encoder and a decoder of stages, {type(network).__name__} has not"
                )
            stages[-1].register_forward_hook(self._drop)

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """Drop feature maps in evaluation mode too while the context lasts."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _drop(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not (module.training or self._on):
            return output
        drop = {4: F.dropout2d, 5: F.dropout3d}[output.ndim]
        dropped: torch.Tensor = drop(output, self.probability, training=True)
        return dropped
