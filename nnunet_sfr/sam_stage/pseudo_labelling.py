"""Pseudo-labels for the unlabelled cases from the fine-tuned SAM (docs/method.md, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.labelling.common import fill_store
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_stage.model import build_stitched_sam, load_adapter
from nnunet_sfr.sam_stage.prediction import VolumePredictor

SOURCE = "sam"


def pseudo_label(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    adapter: str,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
) -> PseudoLabelStore:
    """Label the unlabelled cases that the store does not have yet.

    Args:
        dataset: planned, preprocessed, and with a fine-tuned SAM.
        fold: whose SAM.
        device: to compute on.
        adapter: file name of the adapter in the SAM stage's folder.
        num_parts: share the cases between this many calls.
        part_id: which share this call takes, from 0.
        overwrite: start the store anew.

    Raises:
        UserError: no adapter, no unlabelled cases, cases of another grid, or a store of another maker.
    """
    UnlabelledDataset(dataset.paths.unlabelled)  # without cases there is nothing to build SAM for
    adapter_file = dataset.paths.sam_stage(fold) / adapter
    model = build_stitched_sam(dataset)
    load_adapter(model, dataset, adapter_file)
    predictor = VolumePredictor(model, model.geometry.patch_size, dataset.settings.pseudo_labels, device)
    return fill_store(
        dataset,
        fold,
        _SAMLabeller(predictor),
        _made_by(dataset, fold, adapter_file),
        num_parts=num_parts,
        part_id=part_id,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _SAMLabeller:
    predictor: VolumePredictor
    regions: ClassVar[bool] = False
    """SAM predicts label values, also where nnU-Net trains regions."""

    def case_probabilities(self, identifier: str, image: Any, properties: Mapping[str, Any]) -> torch.Tensor:
        return self.predictor.probabilities(torch.from_numpy(image[:]))


def _made_by(dataset: SFRDataset, fold: Fold, adapter_file: Path) -> dict[str, Any]:
    settings = dataset.settings.to_dict()
    return {
        "source": SOURCE,
        "fold": fold,
        "round": 0,
        "adapter": adapter_file.name,
        "adapter_sha256": file_hash(adapter_file),
        **{section: settings[section] for section in ("stitching", "sam", "pseudo_labels")},
    }
