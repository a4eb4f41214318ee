"""The SAM that the plan names, and where its weights come from."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, note, ok
from nnunet_sfr.sam_models import Download, find_model
from nnunet_sfr.sam_stage.checkpoints import load_weights
from nnunet_sfr.sam_stage.lighter_sam import slow_on_cpu
from nnunet_sfr.sam_stage.model import build_plain_sam
from nnunet_sfr.sam_stage.sam import SegmentationSAM
from nnunet_sfr.sam_stage.weights import cached_file, find_weights
from nnunet_sfr.settings import SAMSettings


def check_model(dataset: SFRDataset, device: torch.device) -> list[Finding]:
    """Model and adaptation.

    Args:
        dataset: planned.
        device: that will compute.
    """
    settings = dataset.settings
    length = f"{settings.fine_tuning.iterations} iterations of {settings.fine_tuning.batch_size} mosaics"
    text = f"{settings.sam.model}, adaptation {_describe_adaptation(settings.sam)}, {length}"
    slow = slow_on_cpu(settings.sam, dataset.num_input_channels) if device.type == "cpu" else None
    if slow is None:
        return [ok("SAM", text)]
    why = "" if slow.why_hours is None else f": {slow.why_hours}"
    remedy = "use a GPU" if slow.lighter is None else f"use a GPU, or plan with {slow.lighter}"
    return [note("SAM", f"{text}; slow without a GPU{why}", remedy)]


def check_checkpoint(dataset: SFRDataset) -> list[Finding]:
    """Whether the pre-trained weights are there and are what they should be; nothing is downloaded.

    Raises:
        UserError: the file that is there is damaged, or the one that the plan names or that should be installed is
            missing or of another model.
    """
    settings = dataset.settings.sam
    model = find_model(settings.model)
    if settings.checkpoint is not None:
        file = find_weights(model, Path(settings.checkpoint))
        load_without_memory(empty_sam(dataset), file)
        return [ok("checkpoint", f"{file}: a checkpoint of {model.name}")]
    if model.weights is None:
        return [ok("checkpoint", f"{model.name} starts from random weights and needs none")]
    source = model.weights.source
    if isinstance(source, Download) and not cached_file(model.weights).is_file():
        text = f"{cached_file(model.weights)}: not there; sfr_finetune will fetch it from {source.url}"
        return [note("checkpoint", text)]
    return [ok("checkpoint", f"{find_weights(model, None)}: its SHA-256 is that of the published file")]


def empty_sam(dataset: SFRDataset) -> SegmentationSAM:
    """The data set's SAM without memory for its weights.

    Raises:
        UserError: the plan's canvas does not suit the model.
    """
    with torch.device("meta"):
        return build_plain_sam(dataset)


def load_without_memory(sam: SegmentationSAM, file: Path) -> None:
    """Check a checkpoint as fine-tuning does, on a network without memory.

    Args:
        sam: on torch's meta device.
        file: with weights.

    Raises:
        UserError: it is missing, broken, or of another architecture.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # that nothing is copied is the point
        load_weights(sam, file)


def _describe_adaptation(settings: SAMSettings) -> str:
    """Name and settings of an adaptation, for example "lora (rank 4, alpha 4)"."""
    values = ", ".join(f"{name} {value}" for name, value in settings.adaptation_settings.items())
    return f"{settings.adaptation} ({values})" if values else settings.adaptation
