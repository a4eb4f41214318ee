"""Ambiguity-consensus Mean Teacher (ACMT): student and teacher agree where the student is unsure.

Z. Xu et al., "Ambiguity-selective consistency regularization for mean-teacher semi-supervised medical image
segmentation", Medical Image Analysis 2023; the selection by entropy of lemoshu/AC-MT@62c7702c.
"""

from __future__ import annotations

import torch

from nnunet_sfr.trainers.consistency import normalised_entropy, squared_difference
from nnunet_sfr.trainers.distributed import mean_over_ranks
from nnunet_sfr.trainers.mean_teacher import nnUNetTrainer_MT
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.schedules import ambiguity_threshold


def ambiguous_voxels(student_logits: torch.Tensor, threshold: float, *, regions: bool = False) -> torch.Tensor:
    """Where the student's normalised entropy is at least the threshold.

    Args:
        student_logits: (B, C, ...).
        threshold: h, between 0 and 1.
        regions: nnU-Net's overlapping regions, each with an entropy of its own.

    Returns:
        (B, 1, ...) booleans, (B, C, ...) for regions.
    """
    return normalised_entropy(student_logits.detach(), regions=regions) >= threshold


def selective_consistency(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, selected: torch.Tensor, *, regions: bool = False
) -> torch.Tensor:
    """sum m (p_s - p_t)^2 / (sum m + 1e-16) with the mask m repeated over the classes.

    With DDP the denominator is the mean over the ranks, so that the averaged gradient is that of the joined batch.

    Args:
        student_logits: (B, C, ...), gradients flow.
        teacher_logits: (B, C, ...), constant.
        selected: (B, 1, ...) or (B, C, ...) booleans.

    Returns:
        a scalar, 0 where nothing is selected.
    """
    difference = squared_difference(student_logits, teacher_logits, regions=regions)
    mask = selected.expand_as(difference).float()
    return (mask * difference).sum() / (mean_over_ranks(mask.sum()) + 1e-16)


class nnUNetTrainer_ACMT(nnUNetTrainer_MT):
    """Mean Teacher on ambiguous voxels, those of entropy >= h(t); the share of voxels selected is logged.

    h(t) rises over the run, so that ever fewer, ever less certain voxels take part.
    """

    method_terms = (*nnUNetTrainer_MT.method_terms, "selected_voxels")

    def consistency_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        regions = self.label_manager.has_regions
        threshold = ambiguity_threshold(
            self.iteration,
            total_iterations=self.schedule_iterations,
            start=self.active_settings.acmt.threshold_start,
            rise=self.active_settings.acmt.threshold_rise,
        )
        selected = ambiguous_voxels(student_logits, threshold, regions=regions)
        self.record(selected_voxels=selected.float().mean())
        return selective_consistency(student_logits, teacher_logits, selected, regions=regions)


class nnUNetTrainerSFR_ACMT(nnUNetTrainer_ACMT):
    """SFR with ACMT: the pseudo-labels are learned from too."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_ACMT(LaterRound, nnUNetTrainerSFR_ACMT):
    """A later round of SFR+ with ACMT."""
