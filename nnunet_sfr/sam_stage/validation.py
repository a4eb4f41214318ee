"""How well a SAM that is being fine-tuned labels cases whose labels are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnunet_sfr.confidence import overlaps_and_totals
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.label_decision import DECISION_RULES
from nnunet_sfr.labelling.case_labels import require_finite
from nnunet_sfr.sam_stage.intensities import intensities_of, intensities_of_case
from nnunet_sfr.sam_stage.prediction import smoothed_predictor
from nnunet_sfr.sam_stage.sam import StitchedSAM


@torch.no_grad()
def mean_foreground_dice(model: StitchedSAM, cases: Any, dataset: SFRDataset, device: torch.device) -> float:
    """Mean over the foreground classes of the Dice, its voxels counted over all cases together.

    Labels are decided as those of the pool will be, but from the image alone: no mean over mirrored images or axes.
    Voxels of the ignore label do not count, nor do classes that are neither in the labels nor in what SAM says.

    Args:
        model: in evaluation mode.
        cases: labelled and preprocessed; nnU-Net's data set class.
        dataset: which they are of.
        device: to compute on.

    Returns:
        0 to 1; 0 without any foreground.

    Raises:
        UserError: SAM predicts numbers that are not finite.
    """
    settings = dataset.settings.pseudo_labels
    probabilities = smoothed_predictor(model, dataset, settings, device)
    decide = DECISION_RULES[settings.decision].decide
    intensities = intensities_of(dataset)
    ignore_label = dataset.label_manager.ignore_label
    overlap, total = np.zeros((2, dataset.num_classes - 1))
    for identifier in cases.identifiers:
        image, labels, _, _ = cases.load_case(identifier)
        truth = torch.from_numpy(labels[0].astype(np.int64))
        counted = truth != ignore_label if ignore_label is not None else torch.ones_like(truth, dtype=torch.bool)
        voxels = torch.from_numpy(intensities_of_case(intensities, image[:], labels))
        predicted = decide(require_finite(identifier, probabilities(voxels)))
        overlaps, totals = overlaps_and_totals(predicted[counted], truth[counted], dataset.num_classes)
        overlap += overlaps.numpy()
        total += totals.numpy()
    present = total > 0
    return float((2 * overlap[present] / total[present]).mean()) if present.any() else 0.0
