"""Bidirectional copy-paste (BCP): a box of each unlabelled patch in a labelled one, and the other way round.

Y. Bai et al., "Bidirectional copy-paste for semi-supervised medical image segmentation", CVPR 2023; details from
DeepMed-Lab-ECNU/BCP@7879f988.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from torch.nn import functional as F

from nnunet_sfr.trainers.hard_labels import hard_targets
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses


def draw_box_mask(patch_size: Sequence[int], ratio: float, device: torch.device) -> torch.Tensor:
    """M: 0 in a box of floor(ratio * length) voxels along each axis (at least one), anywhere in the patch; 1 around it.

    Drawn from NumPy's generator, whose state is in the checkpoint.

    Args:
        patch_size: in voxels.
        ratio: of the box to the patch, along each axis.
        device: of the result.

    Returns:
        (1, 1, *patch_size), float32.
    """
    mask = np.ones((1, 1, *patch_size), dtype=np.float32)
    sides = [max(1, int(length * ratio)) for length in patch_size]
    starts = [np.random.randint(length - side + 1) for length, side in zip(patch_size, sides, strict=True)]
    mask[0, 0][tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = 0
    return torch.from_numpy(mask).to(device)


def paste(outside: torch.Tensor, inside: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """outside * M + inside * (1 - M).

    Args:
        outside: (n, channels, ...), images or targets.
        inside: the same shape.
        mask: M, (1, 1, ...), at any resolution that nnU-Net's deep supervision has; the nearest voxel counts.
    """
    if mask.shape[2:] != outside.shape[2:]:
        mask = F.interpolate(mask, outside.shape[2:], mode="nearest-exact")
    return torch.where(mask > 0, outside, inside)


def keep_largest_components(target: torch.Tensor) -> torch.Tensor:
    """Keep the largest component of each class of each patch; the others become background.

    Args:
        target: (n, 1, ...) labels, or (n, channels, ...) zeros and ones for regions.
    """
    kept = torch.zeros_like(target)
    for item, clean in zip(target, kept, strict=True):
        for channel, clean_channel in zip(item, clean, strict=True):
            for value in channel.unique().tolist():
                if value > 0:
                    largest = remove_all_but_largest_component((channel == value).cpu().numpy())
                    clean_channel[torch.from_numpy(largest).to(target.device)] = value
    return kept


class nnUNetTrainer_BCP(SemiSupervisedTrainer):
    """Labelled and unlabelled patches pasted into each other take the place of L_sup.

    With M a box mask, labelled patches (x, y) and unlabelled ones u with the teacher's labels z,

        L_in  = L(x_i M + u_i (1 - M); y_i on M)     + alpha L(the same; z_i on 1 - M)
        L_out = alpha L(u_i M + x_j (1 - M); z_i on M) + L(the same; y_j on 1 - M)

    where L(...; labels on M) is nnU-Net's loss on the voxels of M alone and x_j is another labelled patch of the batch.
    The log has the terms with true labels together (``supervised_loss``), and those with the teacher's.
    The first part of the run is BCP's pre-training: labelled patches are pasted into each other. The teacher is the
    student's moving average from the end of that part on.
    """

    method_terms = ("teacher_label_loss",)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {**super().loss_weights, "teacher_label_loss": self.active_settings.bcp.unlabelled_weight}

    @property
    def pretraining_iterations(self) -> int:
        """Steps in which labelled patches alone are pasted."""
        return round(self.active_settings.bcp.pretraining_share * self.schedule_iterations)

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        if self.uses_pseudo_labels:
            yield self.pseudo_label_losses(self.network(unlabelled.images), unlabelled)

    def supervised_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        ratio = self.active_settings.bcp.mask_ratio
        mask = draw_box_mask(labelled.images.shape[2:], ratio, self.device)
        if self.iteration < self.pretraining_iterations:
            yield self._pretraining_losses(labelled, mask)
            return
        if self.iteration == self.pretraining_iterations:
            self._teacher.load_state_dict(self.student.state_dict())
        taught = Patches(unlabelled.images, self._teacher_targets(unlabelled.images, labelled.targets))
        yield self._pasted_losses(labelled, taught, mask)
        partners = labelled.select_items(_rolled(len(labelled.images)))
        yield self._pasted_losses(partners, taught, 1.0 - mask)

    def _pretraining_losses(self, labelled: Patches, mask: torch.Tensor) -> Losses:
        """nnU-Net's loss on labelled patches with a box of another labelled patch; a batch of one stays as it is."""
        partners = labelled.select_items(_rolled(len(labelled.images)))
        targets: Any = [
            paste(outside, inside, mask)
            for outside, inside in zip(_listed(labelled.targets), _listed(partners.targets), strict=True)
        ]
        outputs = self.network(paste(labelled.images, partners.images, mask))
        return {"supervised_loss": self.loss(outputs, targets if self.enable_deep_supervision else targets[0])}

    def _pasted_losses(self, labelled: Patches, taught: Patches, mask: torch.Tensor) -> Losses:
        """Of labelled patches where the mask is 1 and others where it is 0: each has the labels of its own voxels."""
        outputs = self.network(paste(labelled.images, taught.images, mask))
        return {
            "supervised_loss": self.weighted_loss(outputs, labelled.targets, mask),
            "teacher_label_loss": self.weighted_loss(outputs, taught.targets, 1.0 - mask),
        }

    def _teacher_targets(self, images: torch.Tensor, like: Any) -> Any:
        """The teacher's labels of patches, at the resolutions of other targets; without noise, as BCP's."""
        logits = self.teacher_logits(images, add_noise=False)
        target = hard_targets(logits, self.label_manager).float()
        if self.active_settings.bcp.largest_component:
            target = keep_largest_components(target)
        if not self.enable_deep_supervision:
            return target
        return [
            target if coarse.shape == target.shape else F.interpolate(target, coarse.shape[2:], mode="nearest-exact")
            for coarse in like
        ]


def _rolled(count: int) -> list[int]:
    """Places that give every patch of a batch another one for a partner; a batch of one its own."""
    return [(place + 1) % count for place in range(count)]


def _listed(values: Any) -> Sequence[torch.Tensor]:
    return values if isinstance(values, (list, tuple)) else [values]


class nnUNetTrainerSFR_BCP(nnUNetTrainer_BCP):
    """SFR with BCP: the pseudo-labels are learned from too, on the patches as they are, from the first step on."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_BCP(LaterRound, nnUNetTrainerSFR_BCP):
    """A later round of SFR+ with BCP; it is past the pre-training."""
