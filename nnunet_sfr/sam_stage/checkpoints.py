"""A published checkpoint becomes a SAM of any input size, number of channels and number of classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_sfr.errors import UserError
from nnunet_sfr.safe_checkpoints import NeedsCodeError, load_checkpoint
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage.backbones import find_backbone
from nnunet_sfr.sam_stage.backbones.backbone import Backbone
from nnunet_sfr.sam_stage.sam import SegmentationSAM

TOKEN_DEVIATION = 0.02
"""Standard deviation of what tells the tokens of the classes apart at the start; that of the numbers in LiteMedSAM's
mask tokens is 0.11 to 0.16."""

_ENCODER = "image_encoder."
_MASK_TOKENS = "mask_decoder.mask_tokens.weight"
_HYPERNETWORK = re.compile(r"mask_decoder\.output_hypernetworks_mlps\.(\d+)\.(.+)")
_IOU_HEAD = "mask_decoder.iou_prediction_head."
_WRAPPERS = ("model", "state_dict")
"""Under which training scripts (MedSAM's and LiteMedSAM's among them) keep the weights beside other things."""


class _MismatchError(Exception):
    """Checkpoint and network differ; the message says in what."""


def load_weights(sam: SegmentationSAM, file: Path) -> None:
    """Load a published checkpoint, strictly: each tensor must be known, and each of the network must be there.

    The tensors of the image encoder are fitted to the input size and channels as its backbone says; prompt encoder and
    mask decoder are taken as they are, but for what follows the number of classes. A published SAM has four mask
    tokens, each with a hypernetwork: token 0 is the one that gives a single mask, the other three propose the whole,
    a part and a sub-part of what is prompted. The token of every class c starts as

        t_c = t_0 + N(0, 0.02^2)

    and its hypernetwork as a copy of that of t_0: without prompts it is the single-mask token that segments, and the
    small differences let the classes part (lite_medsam with two such tokens: Dice 0.70 of the labels with one labelled
    volume of the left atrium, 400 steps of the decoder). The noise comes from torch's global generator. The head that
    predicts IoU is never read by segmentation, and keeps its initialisation where its shape differs.

    Args:
        sam: changed in place, and not at all where an error is raised; call this before it is adapted. On the device
            "meta" the checkpoint is checked only.
        file: the checkpoint: tensors by name, or a dictionary that has them under "model" or "state_dict".

    Raises:
        UserError: the file is missing, broken, would run code, or is not one of this model.
    """
    state = _read(file)
    encoder_state = _below(state, _ENCODER)
    if not encoder_state:
        raise UserError(f"{file}: not a SAM checkpoint: it has no {_ENCODER}*; set sam.checkpoint to another")
    try:
        fitted = _fit_encoder(sam.backbone, sam.image_encoder, encoder_state)
    except _MismatchError as mismatch:
        raise _not_this_encoder(sam.model, encoder_state, file, mismatch) from None
    try:
        fitted |= _fit_rest(sam, state)
    except _MismatchError as mismatch:
        raise _not_this_model(sam.model, file, mismatch) from None
    sam.load_state_dict(fitted)


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU."""
    if not file.is_file():
        raise UserError(f"{file}: not found; set sam.checkpoint in the SFR plan to where it is")
    content = _unpickle(file)
    if isinstance(content, dict):
        wrapped = (content[key] for key in _WRAPPERS if isinstance(content.get(key), dict))
        content = next(wrapped, content)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"{file}: not a SAM checkpoint: it should hold tensors by name; set sam.checkpoint to another")
    return content


def _unpickle(file: Path) -> Any:
    try:
        return load_checkpoint(file)
    except NeedsCodeError as name:
        raise UserError(
            f"{file}: loading it would run code ({name}), which is never done: save its tensors alone, by name, "
            "or set sam.checkpoint to another file"
        ) from None
    except ValueError as error:
        raise UserError(f"{file}: truncated, or not a checkpoint ({error}); download it again") from None


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _fit_encoder(backbone: Backbone, encoder: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the encoder by their names in SAM.

    Args:
        backbone: its family.
        encoder: that they must fit.
        state: by their published names, without ``image_encoder.``.
    """
    own = encoder.state_dict()
    fitted: dict[str, Tensor] = {}
    for published, tensor in state.items():
        name = backbone.rename(published)
        if not name:
            continue
        if name not in own or _ENCODER + name in fitted:
            raise _MismatchError(f"it has the unknown {_ENCODER}{published}")
        fitted[_ENCODER + name] = _fit_tensor(backbone, encoder, name, tensor, own[name], _ENCODER + published)
    _require_all({_ENCODER + name: tensor for name, tensor in own.items()}, fitted)
    return fitted


def _fit_tensor(
    backbone: Backbone, encoder: nn.Module, name: str, tensor: Tensor, own: Tensor, published: str
) -> Tensor:
    if tensor.ndim == own.ndim:  # resizing takes the number of dimensions for granted
        fitted = backbone.fit(encoder, name, tensor)
        if fitted.shape == own.shape:
            return fitted
    raise _wrong_shape(published, tensor, own)


def _fit_rest(sam: SegmentationSAM, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of prompt encoder and mask decoder by name."""
    own = {name: tensor for name, tensor in sam.state_dict().items() if not name.startswith(_ENCODER)}
    fitted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_ENCODER) or _is_of_other_token(name, own):
            continue
        if name not in own:
            raise _MismatchError(f"it has the unknown {name}")
        for target, value in _for_classes(name, tensor, sam.num_classes):
            if value.shape == own[target].shape:
                fitted[target] = value
            elif name.startswith(_IOU_HEAD):
                fitted[target] = own[target]
            else:
                raise _wrong_shape(name, tensor, own[name])
    _require_all(own, fitted)
    return fitted


def _is_of_other_token(name: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a tensor belongs to the hypernetwork of another token than the single-mask token."""
    network = _HYPERNETWORK.fullmatch(name)
    return network is not None and network[1] != "0" and _hypernetwork(0, network[2]) in own


def _hypernetwork(index: int, tensor: str) -> str:
    return f"mask_decoder.output_hypernetworks_mlps.{index}.{tensor}"


def _for_classes(name: str, tensor: Tensor, num_classes: int) -> Iterator[tuple[str, Tensor]]:
    """What a tensor of the checkpoint becomes: tensors by the names of the network."""
    network = _HYPERNETWORK.fullmatch(name)
    if network:
        for index in range(num_classes):
            yield _hypernetwork(index, network[2]), tensor
    elif name == _MASK_TOKENS and tensor.ndim == 2:
        single = tensor[:1].expand(num_classes, -1) if len(tensor) else tensor
        yield name, single + TOKEN_DEVIATION * torch.randn(single.shape)
    else:
        yield name, tensor


def _require_all(own: Mapping[str, Tensor], fitted: Mapping[str, Tensor]) -> None:
    for name in own:
        if name not in fitted:
            raise _MismatchError(f"it lacks {name}")


def _wrong_shape(name: str, tensor: Tensor, own: Tensor) -> _MismatchError:
    return _MismatchError(f"{name} has the shape {list(tensor.shape)} instead of {list(own.shape)}")


def _not_this_model(model: SAMModel, file: Path, mismatch: _MismatchError) -> UserError:
    return UserError(f"{file}: not a checkpoint of {model.name}: {mismatch}; set sam.checkpoint to another")


def _not_this_encoder(model: SAMModel, state: Mapping[str, Tensor], file: Path, mismatch: _MismatchError) -> UserError:
    """Names the models whose encoder the file does fit, if there are any."""
    found = [other.name for other in MODELS.values() if other.name != model.name and _fits(other, state)]
    if not found:
        return _not_this_model(model, file, mismatch)
    return UserError(
        f"{file}: has the shape of {' or '.join(found)}, but the plan says {model.name}; "
        "set sam.model or sam.checkpoint in the SFR plan so that they agree"
    )


def _fits(model: SAMModel, state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a model's encoder. Its sizes are compared at the smallest canvas, for RGB."""
    backbone = find_backbone(model)
    with torch.device("meta"):
        encoder = backbone.build(model, model.canvas.step, 3)
    try:
        _fit_encoder(backbone, encoder, state)
    except _MismatchError:
        return False
    return True
