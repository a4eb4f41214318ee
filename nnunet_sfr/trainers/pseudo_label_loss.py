"""L_pl, the loss on pseudo-labels, with each trusted as far as the settings say (docs/method.md, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.errors import UserError
from nnunet_sfr.settings import PseudoWeightingSettings
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.weighted_loss import at_resolutions, weighted_loss


class PseudoLabelLoss:
    """nnU-Net's loss on pseudo-labels, weighted per case and per voxel, on hard or soft targets.

    With the default settings it is nnU-Net's loss itself.

    Args:
        loss: what nnU-Net's trainer builds, with or without deep supervision.
        settings: how far pseudo-labels are trusted.
        num_classes: of the labels, with the background; with regions the number of regions.
        regions: nnU-Net's overlapping regions.
        case_weights: by identifier (:func:`case_weights`); None weights all cases alike.
    """

    def __init__(
        self,
        loss: nn.Module,
        settings: PseudoWeightingSettings,
        *,
        num_classes: int,
        regions: bool,
        case_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.settings = settings
        self.num_classes = num_classes
        self.guess = 0.5**num_classes if regions else 1.0 / num_classes
        self.case_weights = case_weights
        self.loss = loss
        self._weighted_loss = weighted_loss(loss)

    def __call__(self, outputs: Any, patches: Patches) -> torch.Tensor:
        """L_pl of what the network predicts for patches.

        Args:
            outputs: of the network, (n, C, ...) logits, a list with deep supervision; gradients flow.
            patches: the n patches with their pseudo-labels.

        Returns:
            a scalar.
        """
        if not self.settings.changes_the_loss:
            loss: torch.Tensor = self.loss(outputs, patches.targets)
            return loss
        deep = isinstance(patches.targets, (list, tuple))
        targets: Sequence[torch.Tensor] = patches.targets if deep else [patches.targets]
        weights = at_resolutions(self.voxel_weights(targets[0], patches.voxel_confidence), targets)
        by_patch = [self.patch_weights(patches)] * len(targets)
        if self.settings.soft_targets:
            targets = self._soft_targets(targets, patches.voxel_confidence)
        weighted: torch.Tensor = (
            self._weighted_loss(outputs, targets, weights, by_patch)
            if deep
            else self._weighted_loss(outputs, targets[0], weights[0], by_patch[0])
        )
        return weighted

    def patch_weights(self, patches: Patches) -> torch.Tensor:
        """(n,) weights of the cases that the patches are from.

        Raises:
            ValueError: cases are weighted, and those of the patches are not known.
        """
        count = len(patches.images)
        if self.case_weights is None:
            return torch.ones(count, device=patches.images.device)
        if len(patches.identifiers) != count:
            raise ValueError(f"expected the identifiers of {count} patches, got {len(patches.identifiers)}")
        weights = [self.case_weights[identifier] for identifier in patches.identifiers]
        return torch.tensor(weights, device=patches.images.device)

    def voxel_weights(self, target: torch.Tensor, confidence: torch.Tensor | None) -> torch.Tensor:
        """(n, 1, ...) weights from the confidence and from the distance to a boundary, multiplied.

        Args:
            target: (n, 1, ...) labels, or (n, regions, ...), at full resolution.
            confidence: (n, 1, ...) probability of each voxel's label; needed where the settings ask for it.
        """
        settings = self.settings
        weights = torch.ones_like(target[:, :1], dtype=torch.float32)
        if settings.voxel_power > 0 or settings.voxel_threshold > 0:
            weights = weights * confidence_weights(
                _required(confidence),
                guess=self.guess,
                power=settings.voxel_power,
                threshold=settings.voxel_threshold,
            )
        if settings.boundary_weight < 1:
            weights = weights * boundary_weights(target, lowest=settings.boundary_weight, width=settings.boundary_width)
        return weights

    def _soft_targets(self, targets: Sequence[torch.Tensor], confidence: torch.Tensor | None) -> list[torch.Tensor]:
        maps = at_resolutions(_required(confidence), targets)
        return [
            soft_target(target, values, num_classes=self.num_classes)
            for target, values in zip(targets, maps, strict=True)
        ]


def _required(confidence: torch.Tensor | None) -> torch.Tensor:
    if confidence is None:
        raise ValueError("the patches have come without voxel confidence")
    return confidence


def confidence_weights(confidence: torch.Tensor, *, guess: float, power: float, threshold: float = 0.0) -> torch.Tensor:
    """((q - q0) / (1 - q0))^power, from 0 for a guess to 1 for certainty; 0 below the threshold.

    Args:
        confidence: q, the probability of each voxel's label.
        guess: q0 < 1, the probability of a guess; a q below it counts as one.
        power: 0 gives 1 for every voxel that the threshold lets pass.
        threshold: the lowest q that counts.
    """
    margin = ((confidence - guess) / (1.0 - guess)).clamp(0.0, 1.0)
    return torch.where(confidence >= threshold, margin**power, 0.0)


def boundary_weights(target: torch.Tensor, *, lowest: float, width: int) -> torch.Tensor:
    """b + (1 - b) min(d, w) / w, with d the distance to the nearest boundary.

    A voxel next to one of another label has d = 0, its neighbours inside d = 1 and so on, diagonal steps counted as
    one. The edge of the patch is no boundary.

    Args:
        target: (n, 1, ...) labels or (n, regions, ...), in 2D or 3D; a boundary of any region counts.
        lowest: b, between 0 and 1.
        width: w, in voxels, at least 1.

    Returns:
        (n, 1, ...).
    """
    pool = {4: F.max_pool2d, 5: F.max_pool3d}[target.ndim]

    def spread(values: torch.Tensor) -> torch.Tensor:
        wider: torch.Tensor = pool(values, 3, stride=1, padding=1)
        return wider

    values = target.float()
    near = (spread(values) != -spread(-values)).any(dim=1, keepdim=True).float()
    steps_away = torch.zeros_like(near)  # min(d, w)
    for _ in range(width):
        steps_away += 1.0 - near
        near = spread(near)
    return lowest + (1.0 - lowest) * steps_away / width


def soft_target(labels: torch.Tensor, confidence: torch.Tensor, *, num_classes: int) -> torch.Tensor:
    """Probabilities of the classes: q for the label, and (1 - q) / (C - 1) for each of the others.

    Args:
        labels: (n, 1, ...).
        confidence: (n, 1, ...), q.
        num_classes: C.

    Returns:
        (n, C, ...).
    """
    others = (1.0 - confidence) / (num_classes - 1)
    probabilities = others.repeat_interleave(num_classes, dim=1)
    return probabilities.scatter(1, labels.long(), confidence)


def case_weights(
    records: Mapping[str, Mapping[str, Any]], settings: PseudoWeightingSettings
) -> dict[str, float] | None:
    """c_i = m_i^power / mean over the pool of m^power, with m the measure of the settings.

    A case without a value, as one in which nothing was found, has a weight of 0.

    Args:
        records: confidence record of every case of the pool, by identifier.
        settings: name the measure and the power; no measure gives None.

    Raises:
        UserError: no case has a value above 0.
    """
    if settings.case_measure is None:
        return None
    measure = MEASURES[settings.case_measure]
    known = measure.values(records)
    values = {case: max(value or 0.0, 0.0) ** settings.case_power for case, value in known.items()}
    mean = sum(values.values()) / len(values)
    if mean == 0:
        raise UserError(
            f"retraining.pseudo_weighting.case_measure: no pseudo-label has a {settings.case_measure}; choose another "
            "measure, or null"
        )
    return {case: value / mean for case, value in values.items()}
