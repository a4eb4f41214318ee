"""Weights of a pre-training made to fit the network of a plan, for ``nnUNetv2_train -pretrained_weights``.

nnU-Net takes a file only if it holds every weight of the network but the heads, in the same shapes. Checkpoints of
nnssl (https://github.com/MIC-DKFZ/nnssl; OpenMind) often hold an encoder alone, were made for one input channel, or
differ in a stage: what fits of them is taken, and the rest stays as nnU-Net initialises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_sfr import torch_files
from nnunet_sfr.atomic import replacing
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.safe_checkpoints import NeedsCodeError, load_checkpoint, nnunet_types

WEIGHTS = "network_weights"
"""Where nnU-Net and nnssl keep the weights in a checkpoint."""
HEADS = ".seg_layers."
"""Part of the names of the layers that make label maps, which nnU-Net never takes from another training."""
ENCODER = "encoder."
SHARED = "decoder."
"""nnU-Net's decoder knows its encoder too, so that every weight of it has a second name."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before names."""
LEAST_SHARE = 0.5
"""Of the encoder's weights that must fit, or the file was made for another architecture."""


@dataclass(frozen=True)
class AdaptedWeights:
    """A whole set of weights, part of them from a pre-training.

    Args:
        weights: of every name of the network.
        taken: names that came from the pre-training, as they are.
        repeated: names whose weights of one input channel stand for several.
        kept: names that are as nnU-Net initialised them.
    """

    weights: Mapping[str, Tensor]
    taken: tuple[str, ...]
    repeated: tuple[str, ...]
    kept: tuple[str, ...]


def adapt_weights(network: nn.Module, pretrained: Mapping[str, Tensor]) -> AdaptedWeights:
    """Fill a network's weights with those of a pre-training wherever name and shape agree.

    A convolution of the image that saw one channel is repeated for several and divided by their number, so that equal
    channels give the same features as before.

    Args:
        network: as nnU-Net initialises it; is not changed.
        pretrained: weights by name.

    Raises:
        ValueError: less than half of the encoder fits; the message names the first weight that does not.
    """
    source = {_bare(name): value for name, value in pretrained.items()}
    weights: dict[str, Tensor] = {}
    taken: list[str] = []
    repeated: list[str] = []
    kept: list[str] = []
    for name, own in network.state_dict().items():
        found = source.get(name, source.get(name.removeprefix(SHARED)))
        if HEADS in name or found is None:
            value, names = own, kept
        elif found.shape == own.shape:
            value, names = found.to(own.dtype), taken
        elif _is_one_channel_of(found, own):
            value, names = found.to(own.dtype).expand(own.shape) / own.shape[1], repeated
        else:
            value, names = own, kept
        weights[name] = value.clone()
        names.append(name)
    _require_encoder(network, source, {*taken, *repeated})
    return AdaptedWeights(weights, tuple(taken), tuple(repeated), tuple(kept))


def _bare(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _is_one_channel_of(found: Tensor, own: Tensor) -> bool:
    if found.ndim != own.ndim or found.ndim < 3:
        return False
    return found.shape[1] == 1 and found.shape[0] == own.shape[0] and found.shape[2:] == own.shape[2:]


def _require_encoder(network: nn.Module, source: Mapping[str, Tensor], fitting: set[str]) -> None:
    encoder = {name: value for name, value in network.state_dict().items() if name.startswith(ENCODER)}
    if sum(name in fitting for name in encoder) >= LEAST_SHARE * len(encoder):
        return
    name = next(name for name in encoder if name not in fitting)
    theirs = "does not have it" if name not in source else f"has it in the shape {list(source[name].shape)}"
    raise ValueError(
        f"{sum(name in fitting for name in encoder)} of {len(encoder)} weights of the encoder fit: the plan's network "
        f"has {name} in the shape {list(encoder[name].shape)}, the file {theirs}"
    )


def write_adapted_weights(dataset: SFRDataset, checkpoint: Path, output: Path) -> AdaptedWeights:
    """Write a file for ``-pretrained_weights`` that fits a plan.

    Args:
        dataset: planned.
        checkpoint: of nnssl or nnU-Net; no code in it is run.
        output: file to write; replaced in one move.

    Raises:
        UserError: the checkpoint cannot be read, or was made for another architecture.
    """
    pretrained = _read(checkpoint)
    network = nnUNetTrainer.build_network_architecture(
        dataset.plans_manager,
        dataset.configuration_manager,
        dataset.num_input_channels,
        dataset.label_manager.num_segmentation_heads,
        True,
    )
    try:
        adapted = adapt_weights(network, pretrained)
    except ValueError as error:
        raise UserError(
            f"{checkpoint}: {error}; plan with the architecture of the pre-training (for nnssl's ResEnc-L: "
            "sfr_plan_and_preprocess -pl nnUNetPlannerResEncL), or choose another file"
        ) from None
    with replacing(output) as temporary:
        torch_files.save({WEIGHTS: dict(adapted.weights)}, temporary)
    return adapted


def _read(checkpoint: Path) -> dict[str, Tensor]:
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: not found; choose -i among your checkpoints")
    try:
        content: Any = load_checkpoint(checkpoint, nnunet_types())
    except NeedsCodeError as error:
        raise UserError(f"{checkpoint}: cannot be read without running {error}; it is not loaded") from None
    except ValueError as error:
        raise UserError(f"{checkpoint}: cannot be read ({error}); is it a checkpoint of nnssl or nnU-Net?") from None
    weights = content.get(WEIGHTS) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{checkpoint}: holds no {WEIGHTS}; is it a checkpoint of nnssl or nnU-Net?")
    return weights
