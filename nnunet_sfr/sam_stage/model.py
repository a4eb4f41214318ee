"""The SAM of one data set: built as its SFR plan says, saved and loaded as an adapter file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing
from nnunet_sfr.canvas import UNSCALED
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_models import find_model
from nnunet_sfr.sam_stage.adaptation import adapt, adapter_state, encoder_is_frozen, load_adapter_state
from nnunet_sfr.sam_stage.brightening import Brightness
from nnunet_sfr.sam_stage.checkpoints import load_weights
from nnunet_sfr.sam_stage.sam import SegmentationSAM, StitchedSAM, build_sam, with_encoder
from nnunet_sfr.sam_stage.stitching import geometry_of
from nnunet_sfr.sam_stage.weights import find_weights


def build_stitched_sam(dataset: SFRDataset) -> StitchedSAM:
    """SAM for a data set, with its pre-trained weights where the model has any, ready to be fine-tuned.

    It is that of the first axis across which patches are cut into slices.

    Raises:
        UserError: the weights cannot be had, read, or are of another architecture.
    """
    settings = dataset.settings
    sam = build_plain_sam(dataset)
    weights = weights_file(dataset)
    if weights is not None:
        load_weights(sam, weights)
    return StitchedSAM(adapt(sam, settings.sam), geometry_of(settings.stitching))


def build_plain_sam(dataset: SFRDataset) -> SegmentationSAM:
    """The network of a data set's SAM, with random weights and without an adaptation.

    Raises:
        UserError: the plan's canvas does not suit the model.
    """
    settings = dataset.settings
    try:
        return build_sam(
            settings.sam.model,
            input_size=settings.stitching.canvas_size,
            in_channels=dataset.num_input_channels,
            num_classes=dataset.num_classes,
        )
    except ValueError as error:
        raise UserError(f"{dataset.paths.sfr_plans_file}: {error}") from None


def build_for_every_axis(dataset: SFRDataset) -> list[StitchedSAM]:
    """The SAM of each axis across which patches are cut into slices (:attr:`SFRDataset.planes`), before fine-tuning.

    An encoder that fine-tuning leaves as it is published is read once, and all of them share it.

    Raises:
        UserError: the weights cannot be had, read, or are of another architecture.
    """
    first, *others = dataset.planes
    model = build_stitched_sam(first)
    if not encoder_is_frozen(model.sam):
        return [model, *(build_stitched_sam(plane) for plane in others)]
    encoder = model.sam.image_encoder
    copies = [copy.deepcopy(model.sam, {id(encoder): encoder}) for _ in others]
    geometries = [geometry_of(plane.settings.stitching) for plane in others]
    return [model, *(StitchedSAM(sam, geometry) for sam, geometry in zip(copies, geometries, strict=True))]


def for_inference(model: StitchedSAM) -> StitchedSAM:
    """The same network with its encoder in the fastest form that computes the same, for use without gradients.

    The encoder is a copy of what it is now; everything else is shared with ``model``.
    """
    return all_for_inference([model])[0]


def all_for_inference(models: Sequence[StitchedSAM]) -> list[StitchedSAM]:
    """:func:`for_inference` of several networks; those that share an encoder share its fast form."""
    fast: dict[int, nn.Module] = {}
    for model in models:
        encoder = model.sam.image_encoder
        if id(encoder) not in fast:
            fast[id(encoder)] = model.sam.backbone.for_inference(encoder)
    return [StitchedSAM(with_encoder(model.sam, fast[id(model.sam.image_encoder)]), model.geometry) for model in models]


def weights_file(dataset: SFRDataset) -> Path | None:
    """The file with the pre-trained weights of the data set's SAM; None for a model that starts from scratch.

    Raises:
        UserError: they cannot be had.
    """
    settings = dataset.settings.sam
    model = find_model(settings.model)
    if model.weights is None:
        return None
    return find_weights(model, None if settings.checkpoint is None else Path(settings.checkpoint))


def weights_identity(dataset: SFRDataset) -> str:
    """SHA-256 of the pre-trained weights; empty for a model that starts from scratch.

    Published files are neither looked for nor fetched: building the SAM does that, and takes no others.

    Raises:
        UserError: a file that the user has to give is missing.
    """
    published = find_model(dataset.settings.sam.model).weights
    if dataset.settings.sam.checkpoint is None and published is not None and published.sha256 is not None:
        return published.sha256
    file = weights_file(dataset)
    return "" if file is None else file_hash(file)


def adapter_files(dataset: SFRDataset, fold: Fold, adapter: str, round_index: int = 0) -> list[Path]:
    """Where the adapter of each axis lies across which patches are cut into slices, in the order of the setting.

    Args:
        dataset: planned.
        fold: whose SAM.
        adapter: file name of the adapter in the SAM stage's folder.
        round_index: 0, or the round of SFR+.
    """
    return [plane.paths.sam_stage(fold, round_index) / adapter for plane in dataset.planes]


def adapter_metadata(dataset: SFRDataset) -> dict[str, str]:
    """What an adapter must agree with, as the strings that safetensors keeps as metadata."""
    settings = dataset.settings
    return {
        "model": settings.sam.model,
        "weights_sha256": weights_identity(dataset),
        "adaptation": settings.sam.adaptation,
        "adaptation_settings": json.dumps(settings.sam.adaptation_settings, sort_keys=True),
        "window": json.dumps(settings.sam.window),
        "canvas_size": str(settings.stitching.canvas_size),
        "patch_size": json.dumps(settings.stitching.patch_size),
        "scale": json.dumps(settings.stitching.scale),
        "slice_axis": str(settings.stitching.slice_axes[0]),
        "input_channels": str(dataset.num_input_channels),
        "classes": str(dataset.num_classes),
        "grid": json.dumps(dataset.grid, sort_keys=True),
    }


_BRIGHTNESS = "brightness"
"""In the metadata of an adapter."""


def save_adapter(
    model: StitchedSAM, dataset: SFRDataset, file: Path, *, recipe: str = "", brightness: Brightness | None = None
) -> None:
    """Write what fine-tuning changed, with what it fits to as metadata.

    Args:
        model: fine-tuned.
        dataset: that it fits to.
        file: to write.
        recipe: what made it, for :func:`recipe_of`.
        brightness: of the cases that it was made from, for :func:`brightness_of`.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_state(model.sam).items()}
    metadata = {**adapter_metadata(dataset), "recipe": recipe, "nnunet_sfr_version": __version__}
    if brightness is not None:
        metadata[_BRIGHTNESS] = brightness.to_json()
    with replacing(file) as temporary:
        # not save_file, which lets no other user read the file
        temporary.write_bytes(save(state, metadata=metadata))


def recipe_of(file: Path) -> str:
    """The recipe that an adapter was saved with.

    Raises:
        UserError: not an adapter.
    """
    return _metadata(file).get("recipe", "")


def brightness_of(file: Path) -> Brightness | None:
    """How bright the cases were that an adapter was fine-tuned on; None where that does not matter to the model, and
    of adapters of earlier versions.

    Raises:
        UserError: not an adapter.
    """
    metadata = _metadata(file)
    return Brightness.from_json(metadata[_BRIGHTNESS]) if _BRIGHTNESS in metadata else None


def load_adapter(model: StitchedSAM, dataset: SFRDataset, file: Path) -> None:
    """Put a saved adapter into a model from :func:`build_stitched_sam`.

    Args:
        model: changed in place.
        dataset: whose settings the adapter has to fit.
        file: safetensors, from :func:`save_adapter`.

    Raises:
        UserError: no such file, not an adapter, or one that was made for other settings.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; run sfr_finetune first")
    misfit = misfit_of(file, dataset)
    if misfit:
        raise UserError(f"{file}: {misfit}; run sfr_finetune --overwrite, or restore the setting")
    state = _read(file)
    try:
        load_adapter_state(model.sam, state)
    except ValueError as error:
        raise UserError(f"{file}: {error}; run sfr_finetune --overwrite") from None


def misfit_of(file: Path, dataset: SFRDataset) -> str:
    """In what an adapter, of whatever version, does not fit a data set; empty where it fits.

    Args:
        file: an adapter.
        dataset: whose settings it has to fit.

    Raises:
        UserError: not an adapter.
    """
    metadata, wanted = _metadata(file), adapter_metadata(dataset)
    made_for = {**metadata, **_of_version_0_1(metadata, wanted)}
    for key, value in wanted.items():
        if made_for.get(key) != value:
            return f"made for {key} {made_for.get(key)}, the plan has {value}"
    return ""


def _of_version_0_1(metadata: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """What an adapter of version 0.1 did not say: it knew no scale, no window and no axis of slices, and not which
    weights it changes."""
    if "lora_rank" not in metadata:
        return {}
    rank = json.dumps({"rank": int(metadata["lora_rank"])}) if metadata["lora_rank"] != "None" else "{}"
    unknown = {key: wanted[key] for key in ("weights_sha256", "window")}
    return {"adaptation_settings": rank, "scale": json.dumps(UNSCALED), "slice_axis": "0", **unknown}


def _metadata(file: Path) -> dict[str, str]:
    with _opened(file) as content:
        return content.metadata() or {}


def _read(file: Path) -> dict[str, Tensor]:
    with _opened(file) as content:
        return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a dict


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as content:
            yield content
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: is not a safetensors file ({error}); delete it and run sfr_finetune again") from None
