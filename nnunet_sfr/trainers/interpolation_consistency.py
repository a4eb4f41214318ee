"""Interpolation consistency training (ICT): between two patches the student answers between the teacher's answers.

V. Verma et al., "Interpolation consistency training for semi-supervised learning", IJCAI 2019 and Neural Networks 145
(2022), written from the paper. docs/add-a-method.md goes through this file piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from nnunet_sfr.trainers.consistency import probabilities
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses


def draw_mix(batch_size: int, alpha: float) -> tuple[float, int]:
    """lambda ~ Beta(alpha, alpha) and the shift that gives every patch a partner, one of each for a batch.

    Drawn from NumPy's generator, whose state is in the checkpoint, so that a seed gives the same run on every device.

    Args:
        batch_size: patches, of which each gets a partner.
        alpha: of the beta distribution, above 0.

    Returns:
        lambda between 0 and 1, and the shift from 1 to ``batch_size`` - 1.
    """
    return float(np.random.beta(alpha, alpha)), int(np.random.randint(1, batch_size))


def interpolate(values: torch.Tensor, weight: float, shift: int) -> torch.Tensor:
    """lambda x_i + (1 - lambda) x_j, where item j lies ``shift`` places before item i around the batch.

    Args:
        values: (B, ...).
        weight: lambda, between 0 and 1.
        shift: between 1 and B - 1: no item is its own partner.
    """
    return weight * values + (1.0 - weight) * values.roll(shift, dims=0)


def interpolation_consistency(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, weight: float, shift: int, *, regions: bool = False
) -> torch.Tensor:
    """mean (p_student(mixed patch) - mix of p_teacher(patch) and p_teacher(partner))^2.

    Args:
        student_logits: (n, C, ...) of the first n mixed patches, gradients flow.
        teacher_logits: (B, C, ...) of all B >= n patches before they were mixed, taken as constant.
        weight: lambda, as for the patches.
        shift: as for the patches.
    """
    target = interpolate(probabilities(teacher_logits.detach(), regions=regions), weight, shift)
    return F.mse_loss(probabilities(student_logits, regions=regions), target[: len(student_logits)])


class nnUNetTrainer_ICT(SemiSupervisedTrainer):
    """L_cons = mean (p_student(mix of u_i and u_j) - mix of p_teacher(u_i) and p_teacher(u_j))^2.

    As in the paper the teacher sees the patches without noise: the mix is the perturbation. A batch of one, which
    nnU-Net has on several GPUs, holds no partner; there the labelled patch of the same step is the partner, as an image
    like any other. The authors' commands mix the labelled examples too; here L_sup stays nnU-Net's.
    """

    method_terms = ("consistency_loss",)

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        yield {"consistency_loss": self._consistency_loss(labelled.images, unlabelled.images)}
        if self.uses_pseudo_labels:
            yield self.pseudo_label_losses(self.network(unlabelled.images), unlabelled)

    def _consistency_loss(self, labelled: torch.Tensor, unlabelled: torch.Tensor) -> torch.Tensor:
        images = unlabelled if len(unlabelled) > 1 else torch.cat((unlabelled, labelled))
        weight, shift = draw_mix(len(images), self.active_settings.ict.alpha)
        teacher_logits = self.teacher_logits(images, add_noise=False)
        mixed = interpolate(images, weight, shift)[: len(unlabelled)]
        student_logits = self.full_resolution(self.network(mixed))
        return interpolation_consistency(
            student_logits.float(), teacher_logits.float(), weight, shift, regions=self.label_manager.has_regions
        )


class nnUNetTrainerSFR_ICT(nnUNetTrainer_ICT):
    """SFR with ICT: the pseudo-labels are learned from too, on the patches as they are."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_ICT(LaterRound, nnUNetTrainerSFR_ICT):
    """A later round of SFR+ with ICT."""
