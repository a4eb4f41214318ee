"""The SAM that the plan names, and where its weights come from."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, note, ok
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_stage import checkpoints
from nnunet_sfr.sam_stage.checkpoints import OFFICIAL_CHECKPOINTS, OFFICIAL_URL, fetch_official, load_official
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam


def check_model(dataset: SFRDataset, device: torch.device) -> list[Finding]:
    """Model and adaptation."""
    settings = dataset.settings
    rank = f" of rank {settings.sam.lora_rank}" if settings.sam.adaptation == "lora" else ""
    length = f"{settings.fine_tuning.iterations} iterations of {settings.fine_tuning.batch_size} mosaics"
    text = f"{settings.sam.model}, adaptation {settings.sam.adaptation}{rank}, {length}"
    if settings.sam.model != "vit_tiny" and device.type == "cpu":
        remedy = "use a GPU, or plan with -sam vit_tiny"
        return [note("SAM", f"{text}; it wants a GPU", remedy)]
    return [ok("SAM", text)]


def check_checkpoint(dataset: SFRDataset) -> list[Finding]:
    """Whether the pre-trained weights are there and are what they should be.

    Raises:
        UserError: the file that is there is damaged, or the one that the plan names is missing or of another model.
    """
    settings = dataset.settings.sam
    if settings.model == "vit_tiny":
        return [ok("checkpoint", "vit_tiny starts from random weights and needs none")]
    if settings.checkpoint is not None:
        file = Path(settings.checkpoint)
        load_without_memory(empty_sam(dataset), file)
        return [ok("checkpoint", f"{file}: a checkpoint of {settings.model}")]
    folder = checkpoints.default_cache()
    file = folder / OFFICIAL_CHECKPOINTS[settings.model]
    if not file.is_file():
        return [note("checkpoint", f"{file}: not there; sfr_finetune will fetch it from {OFFICIAL_URL}")]
    fetch_official(settings.model, cache_folder=folder)  # a file that is there is checked, and nothing is fetched
    return [ok("checkpoint", f"{file}: its SHA-256 is the official one")]


def empty_sam(dataset: SFRDataset) -> SegmentationSAM:
    """The data set's SAM without memory for its weights.

    Raises:
        UserError: the plan's canvas does not suit the model.
    """
    settings = dataset.settings
    try:
        with torch.device("meta"):
            return build_sam(
                settings.sam.model,
                input_size=settings.stitching.canvas_size,
                in_channels=dataset.num_input_channels,
                num_classes=dataset.num_classes,
            )
    except ValueError as error:
        raise UserError(f"{dataset.paths.sfr_plans_file}: {error}") from None


def load_without_memory(sam: SegmentationSAM, file: Path) -> None:
    """Check a checkpoint as fine-tuning does, on a network without memory.

    Raises:
        UserError: it is missing, broken, or of another architecture.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # that nothing is copied is the point
        load_official(sam, file)
