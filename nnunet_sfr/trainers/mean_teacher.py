"""Mean Teacher: the student's probabilities follow those of its moving average.

A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017; for segmentation as in AC-MT
(lemoshu/AC-MT@62c7702c) and SFR (ShumengLI/SFR@dc32304b).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from nnunet_sfr.trainers.consistency import squared_difference
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses


class nnUNetTrainer_MT(SemiSupervisedTrainer):
    """Mean Teacher: L_cons = mean (p_student - p_teacher)^2 on the unlabelled patches, the teacher's with noise.

    SFR's own code takes the labelled patches into L_cons too (train_retraining.py@dc32304b); here, as in AC-MT's, the
    labels speak for those.
    """

    method_terms: ClassVar[tuple[str, ...]] = ("consistency_loss",)

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        # the teacher goes first: its feature maps are gone before the student's graph fills the memory
        teacher_logits = self.teacher_logits(unlabelled.images)
        outputs = self.network(unlabelled.images)
        yield {
            **self.pseudo_label_losses(outputs, unlabelled),
            "consistency_loss": self.consistency_loss(self.full_resolution(outputs), teacher_logits),
        }

    def consistency_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """L_cons before its weight.

        Args:
            student_logits: (n, C, ...) at full resolution, gradients flow.
            teacher_logits: (n, C, ...), of the same patches with noise, constant.
        """
        return squared_difference(student_logits, teacher_logits, regions=self.label_manager.has_regions).mean()


class nnUNetTrainerSFR_MT(nnUNetTrainer_MT):
    """SFR with Mean Teacher: the pseudo-labels are learned from too."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_MT(LaterRound, nnUNetTrainerSFR_MT):
    """A later round of SFR+ with Mean Teacher."""
