"""Mean Teacher: the student's probabilities follow those of its moving average.

A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017; for segmentation as in AC-MT
(lemoshu/AC-MT@62c7702c) and SFR (ShumengLI/SFR@dc32304b).
"""

from __future__ import annotations

import torch

from nnunet_sfr.trainers.consistency import squared_difference
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer


class nnUNetTrainerSFR_MT(SemiSupervisedTrainer):
    """SFR with Mean Teacher: SAM's pseudo-labels, and L_cons = mean (p_student - p_teacher)^2 on unlabelled patches.

    SFR's own code takes the labelled patches into L_cons too (train_retraining.py@dc32304b); here, as in AC-MT's, the
    labels speak for those.
    """

    def consistency_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        return squared_difference(student_logits, teacher_logits, regions=self.label_manager.has_regions).mean()
