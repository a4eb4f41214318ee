"""SAM's official weights: fetched once, checked, and fitted to another input size, channel count and class count."""

from __future__ import annotations

import http.client
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.hub import download_url_to_file
from torch.nn import functional as F

from nnunet_sfr.atomic import is_disk_full
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.sam_stage.sam import ARCHITECTURES, SegmentationSAM

OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL_CHECKPOINTS = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
"""File names by model. Each ends in the first digits of the file's SHA-256."""

CACHE_VARIABLE = "NNUNET_SFR_CACHE"

_POSITIONS = "image_encoder.pos_embed"
_PATCH_KERNEL = "image_encoder.patch_embed.proj.weight"
_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")
_RELATIVE_POSITIONS = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_[hw]")
_CLASS_MLP = re.compile(r"mask_decoder\.output_hypernetworks_mlps\.\d+\..*")
"""One small network per class: the number of these tensors follows the number of classes."""
_CLASS_SHAPED = re.compile(r"mask_decoder\.(mask_tokens\.weight|iou_prediction_head\.layers\.2\.(weight|bias))")
"""Tensors whose shape follows the number of classes."""


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of the network when a checkpoint was loaded, by name.

    Args:
        loaded: taken from the file as they are.
        interpolated: taken from the file and fitted to the input size or to the number of input channels.
        new: left as they were initialised.
    """

    loaded: tuple[str, ...]
    interpolated: tuple[str, ...]
    new: tuple[str, ...]


def fetch_official(model: str, *, cache_folder: Path | None = None, base_url: str = OFFICIAL_URL) -> Path:
    """The official checkpoint of a model, downloaded unless it is there already; its hash is checked either way.

    Args:
        model: vit_b, vit_l or vit_h.
        cache_folder: where to keep it; by default $NNUNET_SFR_CACHE, else torch hub's folder of checkpoints.
        base_url: the folder to download from, with a slash at its end.

    Raises:
        ValueError: the model has no official checkpoint.
        UserError: the file cannot be downloaded, or is not the official one.
    """
    if model not in OFFICIAL_CHECKPOINTS:
        raise ValueError(f"{model} has no official checkpoint (there is one for {', '.join(OFFICIAL_CHECKPOINTS)})")
    file = (cache_folder or default_cache()) / OFFICIAL_CHECKPOINTS[model]
    if file.is_file():
        if not file_hash(file).startswith(_hash_prefix(file)):
            raise UserError(f"{file}: is damaged (its SHA-256 is not the official one); delete it to download it again")
        return file
    _download(base_url + file.name, file)
    return file


def load_official(sam: SegmentationSAM, file: Path) -> LoadReport:
    """Load a checkpoint with the names and shapes of the official ones. Call it before the network is adapted.

    Where the input size differs from the checkpoint's, the absolute positions are interpolated bilinearly and the
    relative positions of the blocks with global attention linearly (windows keep theirs). For a number of channels
    other than 1 or 3 the patch kernel is the mean over RGB times 3 / n for each channel: n equal channels give what a
    grey image copied to three would. Decoder tensors that follow the number of classes stay new where they do not fit.

    Args:
        sam: changed in place.
        file: the checkpoint.

    Raises:
        UserError: the file is missing, broken, not a SAM checkpoint, or one of another architecture.
    """
    state = _read_checkpoint(file)
    _check_architecture(sam, state, file)
    _check_names(sam, state, file)
    own = sam.state_dict()
    usable: dict[str, Tensor] = {}
    for name in own.keys() & state.keys():
        tensor = _fit(sam, name, state[name])
        if tensor.shape == own[name].shape:
            usable[name] = tensor
        elif not _CLASS_SHAPED.fullmatch(name):
            shapes = f"the shape {list(state[name].shape)} instead of {list(own[name].shape)}"
            raise _not_this_model(sam, file, f"{name} has {shapes}")
    sam.load_state_dict(usable, strict=False)
    return LoadReport(
        loaded=tuple(name for name in own if name in usable and usable[name] is state[name]),
        interpolated=tuple(name for name in own if name in usable and usable[name] is not state[name]),
        new=tuple(name for name in own if name not in usable),
    )


def default_cache() -> Path:
    """Where official checkpoints are kept: $NNUNET_SFR_CACHE, else torch hub's folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else Path(torch.hub.get_dir()) / "checkpoints"


def _hash_prefix(file: Path) -> str:
    return file.stem.rpartition("_")[2]


def _download(url: str, file: Path) -> None:
    """Download to a temporary name, check the hash on the way, and rename; on failure nothing is left."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(file), hash_prefix=_hash_prefix(file))
    except (OSError, http.client.HTTPException) as error:
        if is_disk_full(error):
            raise UserError(f"{file}: the disk is full; free some space and run the same command again") from None
        raise UserError(
            f"{url} cannot be downloaded ({error}); download it elsewhere and put it at {file}, "
            "or set sam.checkpoint in the SFR plan to where it is"
        ) from None
    except RuntimeError as error:
        # torch's word for a wrong hash; a connection that broke off early ends here too.
        raise UserError(
            f"{url} arrived damaged or incomplete ({error}); run the same command again, or put the file at {file}"
        ) from None


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU."""
    if not file.is_file():
        raise UserError(f"{file}: not found; set sam.checkpoint in the SFR plan to a SAM checkpoint, or to null")
    try:
        # Memory mapping reads only what is used, but torch's format from before 1.6 does not allow it.
        mmap = zipfile.is_zipfile(file)
        content = torch.load(str(file), map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        # Whatever a file holds that is not a checkpoint, the unpickler fails on it in its own way.
        raise UserError(f"{file}: truncated, or not a checkpoint ({type(error).__name__}); download it again") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file}: not a SAM checkpoint: it should hold tensors by name; set sam.checkpoint to another")
    return content


def _check_architecture(sam: SegmentationSAM, state: dict[str, Tensor], file: Path) -> None:
    if _POSITIONS not in state or state[_POSITIONS].ndim != 4:
        raise UserError(f"{file}: not a SAM checkpoint: it has no {_POSITIONS}; set sam.checkpoint to another")
    width = state[_POSITIONS].shape[-1]
    depth = len({match[1] for match in map(_BLOCK.match, state) if match})
    ours = sam.architecture
    if (width, depth) == (ours.embed_dim, ours.depth):
        return
    known = (known.name for known in ARCHITECTURES.values() if (known.embed_dim, known.depth) == (width, depth))
    found = next(known, f"a ViT with {depth} blocks of width {width}")
    raise UserError(
        f"{file}: has the shape of {found}, but the plan says {ours.name}; "
        "set sam.model or sam.checkpoint in the SFR plan so that they agree"
    )


def _check_names(sam: SegmentationSAM, state: dict[str, Tensor], file: Path) -> None:
    """Every name must be on both sides, but for the networks of classes that only one side has."""
    own = sam.state_dict().keys()
    for name in own - state.keys():
        if not _CLASS_MLP.fullmatch(name):
            raise _not_this_model(sam, file, f"it lacks {name}")
    for name in state.keys() - own:
        if not _CLASS_MLP.fullmatch(name):
            raise _not_this_model(sam, file, f"it has the unknown {name}")


def _not_this_model(sam: SegmentationSAM, file: Path, fault: str) -> UserError:
    return UserError(f"{file}: not a checkpoint of {sam.architecture.name}: {fault}; set sam.checkpoint to another")


def _fit(sam: SegmentationSAM, name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, or fitted to the network's input size or channels where that is what changes its shape."""
    tokens = sam.input_size // sam.architecture.patch_size
    if name == _POSITIONS and tensor.shape[1:3] != (tokens, tokens):
        return _resize_positions(tensor, tokens)
    if name == _PATCH_KERNEL and sam.has_own_patch_embedding and tensor.shape[1] == 3:
        return tensor.mean(1, keepdim=True).repeat(1, sam.in_channels, 1, 1) * (3 / sam.in_channels)
    block = _RELATIVE_POSITIONS.fullmatch(name)
    if block and int(block[1]) in sam.architecture.global_blocks and len(tensor) != 2 * tokens - 1:
        return _resize_relative_positions(tensor, tokens)
    return tensor


def _resize_positions(positions: Tensor, tokens: int) -> Tensor:
    """From [1, h, w, C] to [1, tokens, tokens, C]."""
    channels_first = positions.permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, size=(tokens, tokens), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _resize_relative_positions(table: Tensor, tokens: int) -> Tensor:
    """From [2 * size - 1, C] to [2 * tokens - 1, C]: one row for each distance between two tokens."""
    return F.interpolate(table.T[None], size=2 * tokens - 1, mode="linear", align_corners=False)[0].T
