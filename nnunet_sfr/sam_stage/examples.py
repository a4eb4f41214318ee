"""What a fine-tuning step works on: augmented patches, or embedded views where the encoder is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from nnunet_sfr.data.loaders import stop_workers
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.sam_stage.embedding import EmbeddedViews
from nnunet_sfr.sam_stage.intensities import intensities_of
from nnunet_sfr.sam_stage.labelled_canvas import labelled_canvas
from nnunet_sfr.sam_stage.sam import StitchedSAM


class Examples(Protocol):
    """Endless batches, this process's share of each."""

    embedded: bool
    """Whether they are image embeddings, and not stitched patches."""

    def draw(self) -> tuple[Tensor, Tensor]:
        """Inputs of :class:`CanvasLogits` and targets [B, S, S], int64 with ``IGNORE_INDEX``, on the CPU."""

    def close(self) -> None:
        """Stop worker processes."""


class PatchExamples:
    """Augmented patches, stitched: [B, channels, S, S].

    Args:
        dataset: gives intensities and labels.
        batches: of nnU-Net's loader, from :func:`nnunet_sfr.sam_stage.patches.labelled_patches`.
        model: gives the geometry.
    """

    embedded = False

    def __init__(self, dataset: SFRDataset, batches: Iterator[dict[str, Any]], model: StitchedSAM) -> None:
        self._batches = batches
        self._geometry = model.geometry
        self._intensities = intensities_of(dataset)
        self._ignore_label = dataset.label_manager.ignore_label

    def draw(self) -> tuple[Tensor, Tensor]:
        batch = next(self._batches)
        return labelled_canvas(
            self._geometry,
            batch["data"],
            batch["target"],
            intensities=self._intensities,
            ignore_label=self._ignore_label,
        )

    def close(self) -> None:
        stop_workers(self._batches)


class ViewExamples:
    """Embedded views [B, dim, h, w]."""

    embedded = True

    def __init__(self, views: EmbeddedViews) -> None:
        self._views = views

    def draw(self) -> tuple[Tensor, Tensor]:
        return next(self._views)

    def close(self) -> None:
        """There are no worker processes."""


class CanvasLogits(nn.Module):
    """From the inputs of a step to logits [B, num_classes, S, S]: one forward for DistributedDataParallel to wrap.

    Args:
        model: fine-tuned through this module.
        embedded: whether the inputs are image embeddings [B, dim, h, w], and not stitched patches [B, channels, S, S].
    """

    def __init__(self, model: StitchedSAM, *, embedded: bool) -> None:
        super().__init__()
        self.model = model
        self.embedded = embedded

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model.sam.decode(inputs) if self.embedded else self.model.sam(inputs)
        return logits
