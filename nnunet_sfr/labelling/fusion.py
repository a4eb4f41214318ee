"""Two sources of labels for one case: the mean of SAM's and the re-trained model's probabilities.

A network that learned from SAM's labels is better than they are, and makes other mistakes than SAM; on the left atrium
the mean of both has a higher Dice than either (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from nnunet_sfr.data.b2nd_files import open_b2nd
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.voxel_confidence import CERTAIN, voxel_confidence_file
from nnunet_sfr.errors import UserError


@dataclass(frozen=True)
class Fusion:
    """Mixes the labels of a store into predictions: (1 - share) p + share q.

    A store keeps the label of a voxel and its probability c; in q the other classes share 1 - c evenly, which is exact
    for two classes.

    Args:
        store: of the other source.
        share: of its probabilities, between 0 and 1.
    """

    store: PseudoLabelStore
    share: float

    def __call__(self, identifier: str, probabilities: torch.Tensor) -> torch.Tensor:
        """Mix the stored labels of a case into its probabilities (K, D, H, W), a softmax over label values.

        Raises:
            UserError: the store has no probabilities of the case.
        """
        file = voxel_confidence_file(self.store.folder, identifier)
        if not self.store.has(identifier) or not file.is_file():
            raise UserError(
                f"{self.store.folder}: has no probabilities of {identifier}, of which rounds.model_share takes "
                f"{self.share:g}; fill it again ({self.store.made_by.refill}), or set rounds.model_share to 0"
            )
        mixed = torch.empty_like(probabilities)
        for label, of_store in enumerate(stored_probabilities(self.store, identifier, len(probabilities))):
            mixed[label] = (1 - self.share) * probabilities[label] + self.share * of_store
        return mixed


def stored_probabilities(store: PseudoLabelStore, identifier: str, num_classes: int) -> Iterator[torch.Tensor]:
    """What a store holds of a case, class by class, for the memory of a CT with many.

    Args:
        store: that has the probabilities of the case.
        identifier: of the case.
        num_classes: label values, background included.

    Yields:
        (D, H, W), the probability of each label value: that of the label of a voxel, and an even share of the rest.
    """
    labels = torch.from_numpy(store.read_labels(identifier)[0]).long().clamp(min=0)
    certainty = torch.from_numpy(open_b2nd(voxel_confidence_file(store.folder, identifier))[:]).float() / CERTAIN
    others = (1 - certainty) / (num_classes - 1)
    for label in range(num_classes):
        yield torch.where(labels == label, certainty, others)
