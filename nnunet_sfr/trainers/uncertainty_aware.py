"""Uncertainty-aware Mean Teacher (UA-MT): student and teacher agree where the teacher is certain.

L. Yu et al., "Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium segmentation", MICCAI 2019;
details from yulequan/UA-MT@88ed29ad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from nnunet_sfr.trainers.consistency import entropy_of, probabilities, selective_consistency
from nnunet_sfr.trainers.mean_teacher import nnUNetTrainer_MT
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.schedules import rising_threshold
from nnunet_sfr.trainers.sequential_backward import Losses


def predictive_entropy(predict: Callable[[], torch.Tensor], passes: int, *, regions: bool = False) -> torch.Tensor:
    """-sum_c m_c log(m_c + 1e-6) / log C with m the mean of the probabilities of several random predictions.

    Args:
        predict: gives logits (B, C, ...), others with every call.
        passes: number of predictions.
        regions: nnU-Net's overlapping regions, each with an entropy of its own.

    Returns:
        (B, 1, ...) between 0 (certain) and 1, (B, C, ...) for regions.
    """
    total = probabilities(predict().float(), regions=regions)
    for _ in range(passes - 1):  # one at a time: the authors' two halve the time on an idle GPU and double the memory
        total = total + probabilities(predict().float(), regions=regions)
    return entropy_of(total / passes, regions=regions)


class nnUNetTrainer_UAMT(nnUNetTrainer_MT):
    """Mean Teacher on voxels where the teacher's predictive entropy is below h(t); their share is logged.

    The entropy is that of the mean of several predictions with noise and dropout. h(t) rises over the run, so that ever
    more voxels take part. The target is the prediction with noise alone; the authors' has dropout too, as their teacher
    is in training mode.
    """

    method_terms = (*nnUNetTrainer_MT.method_terms, "selected_voxels")

    @property
    def dropout(self) -> float:
        return self.active_settings.uamt.dropout

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        selected = self._certain_voxels(unlabelled.images)
        teacher_logits = self.teacher_logits(unlabelled.images)
        outputs = self.network(unlabelled.images)
        yield {
            **self.pseudo_label_losses(outputs, unlabelled),
            "consistency_loss": selective_consistency(
                self.full_resolution(outputs), teacher_logits, selected, regions=self.label_manager.has_regions
            ),
        }

    def _certain_voxels(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 1, ...) booleans, (n, C, ...) for regions."""
        settings = self.active_settings.uamt
        entropy = predictive_entropy(
            lambda: self.teacher_logits(images, dropout=self.dropout > 0),
            settings.passes,
            regions=self.label_manager.has_regions,
        )
        selected = entropy < rising_threshold(
            self.iteration,
            total_iterations=self.schedule_iterations,
            start=settings.threshold_start,
            rise=settings.threshold_rise,
        )
        self.record(selected_voxels=selected.float().mean())
        return selected


class nnUNetTrainerSFR_UAMT(nnUNetTrainer_UAMT):
    """SFR with UA-MT: the pseudo-labels are learned from too."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_UAMT(LaterRound, nnUNetTrainerSFR_UAMT):
    """A later round of SFR+ with UA-MT."""
