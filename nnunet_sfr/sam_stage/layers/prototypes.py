"""Prompt tokens from prototypes: mean embeddings of labelled regions in the place of points and boxes.

SAM Fewshot Finetuning for Anatomical Segmentation in Medical Images (Xie et al.): the embeddings of a few annotated
regions prompt the mask decoder; encoder frozen, only the mask decoder and the projection of the prototypes are trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

MOST_SAMPLES = 4096
"""Embeddings of each class in each image that prototypes are computed from; the largest organs have more."""

MOST_CLUSTERED = 2**15
"""Embeddings of each class in all images together that k-means takes; a mean takes all of them."""


class PrototypePrompts(nn.Module):
    """Projected prototypes as prompt tokens.

    The projection starts as the identity: the tokens are then embeddings of the image encoder itself, and the decoder's
    attention finds the places of the image that resemble them. Without prototypes there are no tokens, and SAM is what
    it is without prompts.

    Args:
        num_prototypes: n, over all classes.
        dim: channels of the image embedding.
    """

    prototypes: Tensor
    collected: Tensor

    def __init__(self, num_prototypes: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, dim)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.register_buffer("prototypes", torch.zeros(num_prototypes, dim))
        self.register_buffer("collected", torch.zeros((), dtype=torch.bool))
        self._has_prototypes = False
        self.register_load_state_dict_post_hook(_note_prototypes)

    def forward(self) -> Tensor:
        """Prompt tokens [1, n, dim]; [1, 0, dim] before there are prototypes."""
        prototypes = self.prototypes if self.has_prototypes else self.prototypes[:0]
        tokens: Tensor = self.projection(prototypes)[None]
        return tokens

    @property
    def has_prototypes(self) -> bool:
        """Whether they were collected, or loaded."""
        return self._has_prototypes

    def collect(self, embedded: Iterable[tuple[Tensor, Tensor]], num_classes: int, *, ignore_index: int) -> None:
        """Compute the prototypes from labelled images; :func:`class_prototypes` says how.

        Args:
            embedded: image embedding [dim, h, w] and label map [S, S] of each labelled image.
            num_classes: label values, background included.
            ignore_index: value of pixels that count for no class.
        """
        per_class = len(self.prototypes) // num_classes
        found = class_prototypes(embedded, num_classes, per_class, ignore_index=ignore_index)
        self.prototypes.copy_(found)
        self.collected.fill_(True)
        self._has_prototypes = True


def _note_prototypes(prompts: nn.Module, incompatible_keys: object) -> None:
    """Read the buffer once: a forward pass that asks it cannot run without memory, as memory is estimated."""
    assert isinstance(prompts, PrototypePrompts)
    if not prompts.collected.is_meta:
        prompts._has_prototypes = bool(prompts.collected)


def class_prototypes(
    embedded: Iterable[tuple[Tensor, Tensor]], num_classes: int, per_class: int, *, ignore_index: int
) -> Tensor:
    """Centres of the embeddings that lie in the region of each class.

    Args:
        embedded: pairs of an embedding [dim, h, w] and a label map [S, S] of int64 (values 0 to num_classes - 1 or
            ``ignore_index``).
        num_classes: background included.
        per_class: prototypes of each class; above 1 they are the centres that k-means finds.
        ignore_index: the value of pixels without a label.

    Returns:
        [num_classes * per_class, dim], class by class; zeros for a class that no image shows.
    """
    regions: list[_Region] = []
    for embedding, labels in embedded:
        regions = regions or [_Region(len(embedding), clustered=per_class > 1) for _ in range(num_classes)]
        small = F.interpolate(labels[None, None].float(), size=embedding.shape[1:], mode="nearest-exact")[0, 0].long()
        for label, region in enumerate(regions):
            inside = embedding[:, small == label].T.float()
            stride = -(-len(inside) // MOST_SAMPLES) or 1
            region.add(inside[::stride])
    return torch.cat([region.centres(per_class) for region in regions])


class _Region:
    """What is kept of the embeddings inside one class, so that memory does not grow with the number of images.

    Args:
        dim: channels of an embedding.
        clustered: whether k-means will need embeddings, evenly spaced among all; the mean needs only their sum.
    """

    def __init__(self, dim: int, *, clustered: bool) -> None:
        self._sum = torch.zeros(dim, dtype=torch.float64)
        self._count = 0
        self._clustered = clustered
        self._kept = torch.zeros(0, dim)
        self._stride = 1

    def add(self, values: Tensor) -> None:
        """Take more embeddings [n, dim]."""
        if self._clustered:
            # every stride-th of all; cat copies, so that nothing holds the image's embedding
            self._kept = torch.cat([self._kept, values[-self._count % self._stride :: self._stride]])
            while len(self._kept) > MOST_CLUSTERED:
                self._kept, self._stride = self._kept[::2].clone(), 2 * self._stride
        self._sum += values.sum(dim=0, dtype=torch.float64)
        self._count += len(values)

    def centres(self, count: int) -> Tensor:
        """[count, dim]: the mean, or the centres of k-means; zeros where there is nothing."""
        if count > 1 and len(self._kept) >= count:
            centres, _ = kmeans2(self._kept.numpy().astype(np.float64), count, minit="++", seed=0)
            return torch.from_numpy(centres).float()
        return (self._sum / max(1, self._count)).float().repeat(count, 1)
