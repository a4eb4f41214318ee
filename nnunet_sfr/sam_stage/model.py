"""The SAM of one data set: built as its SFR plan says, saved and loaded as an adapter file."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_stage.adaptation import adapt, adapter_state, load_adapter_state
from nnunet_sfr.sam_stage.checkpoints import fetch_official, load_official
from nnunet_sfr.sam_stage.sam import StitchedSAM, build_sam
from nnunet_sfr.sam_stage.stitching import StitchGeometry

FINAL_ADAPTER = "adapter_final.safetensors"
BEST_ADAPTER = "adapter_best.safetensors"
FINAL_OPTIMIZER = "optimizer_final.pt"
"""The optimiser beside the final adapter, with which the next round of SFR+ goes on."""


def build_stitched_sam(dataset: SFRDataset) -> StitchedSAM:
    """SAM for a data set, with its pre-trained weights where the model has any, ready to be fine-tuned.

    Raises:
        UserError: the checkpoint cannot be had, read, or is of another architecture.
    """
    settings = dataset.settings
    try:
        sam = build_sam(
            settings.sam.model,
            input_size=settings.stitching.canvas_size,
            in_channels=dataset.num_input_channels,
            num_classes=dataset.num_classes,
        )
    except ValueError as error:
        raise UserError(f"{dataset.paths.sfr_plans_file}: {error}") from None
    if settings.sam.model != "vit_tiny":
        checkpoint = settings.sam.checkpoint
        load_official(sam, Path(checkpoint) if checkpoint else fetch_official(settings.sam.model))
    geometry = StitchGeometry(settings.stitching.patch_size, settings.stitching.canvas_size)
    return StitchedSAM(adapt(sam, settings.sam), geometry)


def describe(dataset: SFRDataset) -> dict[str, str]:
    """What an adapter must agree with, as the strings that safetensors keeps as metadata."""
    settings = dataset.settings
    return {
        "model": settings.sam.model,
        "adaptation": settings.sam.adaptation,
        "lora_rank": str(settings.sam.lora_rank if settings.sam.adaptation == "lora" else None),
        "canvas_size": str(settings.stitching.canvas_size),
        "patch_size": json.dumps(settings.stitching.patch_size),
        "input_channels": str(dataset.num_input_channels),
        "classes": str(dataset.num_classes),
        "grid": json.dumps(dataset.grid, sort_keys=True),
    }


def save_adapter(model: StitchedSAM, dataset: SFRDataset, file: Path, *, recipe: str = "") -> None:
    """Write what fine-tuning changed, with what it fits to as metadata.

    Args:
        model: fine-tuned.
        dataset: that it fits to.
        file: to write.
        recipe: what made it, for :func:`recipe_of`.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_state(model.sam).items()}
    metadata = {**describe(dataset), "recipe": recipe, "nnunet_sfr_version": __version__}
    with replacing(file) as temporary:
        # not save_file, which lets nobody else read the file
        temporary.write_bytes(save(state, metadata=metadata))


def recipe_of(file: Path) -> str:
    """The recipe that an adapter was saved with.

    Raises:
        UserError: not an adapter.
    """
    metadata, _ = _read(file)
    return metadata.get("recipe", "")


def load_adapter(model: StitchedSAM, dataset: SFRDataset, file: Path) -> None:
    """Put a saved adapter into a model from :func:`build_stitched_sam`.

    Raises:
        UserError: no such file, not an adapter, or one that was made for other settings.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; run sfr_finetune first")
    metadata, state = _read(file)
    for key, value in describe(dataset).items():
        if metadata.get(key) != value:
            raise UserError(
                f"{file}: made for {key} {metadata.get(key)}, the plan has {value}; "
                "run sfr_finetune --overwrite, or restore the setting"
            )
    try:
        load_adapter_state(model.sam, state)
    except ValueError as error:
        raise UserError(f"{file}: {error}; run sfr_finetune --overwrite") from None


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as content:
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a dict
            return content.metadata() or {}, state
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: is not a safetensors file ({error}); delete it and run sfr_finetune again") from None
