"""Ambiguity-consensus Mean Teacher (ACMT): student and teacher agree where the student is unsure.

Z. Xu et al., "Ambiguity-selective consistency regularization for mean-teacher semi-supervised medical image
segmentation", Medical Image Analysis 2023; the selection by entropy of lemoshu/AC-MT@62c7702c.
"""

from __future__ import annotations

import torch

from nnunet_sfr.trainers.consistency import entropy_of_logits, selective_consistency
from nnunet_sfr.trainers.mean_teacher import nnUNetTrainer_MT
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.schedules import rising_threshold


def ambiguous_voxels(student_logits: torch.Tensor, threshold: float, *, regions: bool = False) -> torch.Tensor:
    """Where the student's normalised entropy is at least the threshold.

    Args:
        student_logits: (B, C, ...).
        threshold: h, between 0 and 1.
        regions: nnU-Net's overlapping regions, each with an entropy of its own.

    Returns:
        (B, 1, ...) booleans, (B, C, ...) for regions.
    """
    return entropy_of_logits(student_logits.detach(), regions=regions) >= threshold


class nnUNetTrainer_ACMT(nnUNetTrainer_MT):
    """Mean Teacher on ambiguous voxels, those of entropy >= h(t); the share of voxels selected is logged.

    h(t) rises over the run, so that ever fewer, ever less certain voxels take part.
    """

    method_terms = (*nnUNetTrainer_MT.method_terms, "selected_voxels")

    def consistency_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        regions = self.label_manager.has_regions
        threshold = rising_threshold(
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
