"""Label maps and targets out of logits, for labels and for nnU-Net's overlapping regions."""

from __future__ import annotations

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager


def predicted_labels(logits: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Which label nnU-Net would write.

    Args:
        logits: (B, C, ...).
        labels: of the data set; with regions, a later region in its order overwrites an earlier one.

    Returns:
        (B, ...) int64.
    """
    if not labels.has_regions:
        return logits.argmax(dim=1)
    decisions = (logits > 0).float()  # as probabilities: nnU-Net asks whether they are above 0.5
    return torch.stack([labels.convert_probabilities_to_segmentation(item) for item in decisions]).long()


def hard_targets(logits: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """The decision that the logits stand for, as a target of nnU-Net's loss.

    Args:
        logits: (B, C, ...).
        labels: of the data set.

    Returns:
        (B, 1, ...) label map; with regions (B, C, ...) zeros and ones, and a last channel of zeros where there is an
        ignore label, for no voxel is ignored.
    """
    if not labels.has_regions:
        return logits.argmax(dim=1, keepdim=True)
    target = (logits > 0).float()
    if labels.has_ignore_label:
        target = torch.cat((target, torch.zeros_like(target[:, :1])), dim=1)
    return target
