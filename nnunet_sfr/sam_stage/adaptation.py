"""An adapted SAM: what of it is trained, and that part saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.sam_stage.sam import UNUSED_MODULES, SegmentationSAM
from nnunet_sfr.settings import SAMSettings

_TOKEN_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
"""Random and not a parameter: without it a network that was trained from scratch cannot be rebuilt."""


def adapt(sam: SegmentationSAM, settings: SAMSettings) -> SegmentationSAM:
    """Choose the trainable parameters and put in what the adaptation adds. Call it once, after loading the weights.

    The mask decoder and the no-mask embedding are always trained, and so is the encoder's first layer where the number
    of input channels asks for another one than the published; the parts that no forward reads never are.

    Args:
        sam: changed in place.
        settings: name the adaptation and its own settings.

    Returns:
        ``sam`` itself.
    """
    sam.requires_grad_(True)
    sam.image_encoder.requires_grad_(False)
    find_adaptation(settings.adaptation).prepare(sam, settings.strategy)
    if sam.has_own_patch_embedding:
        sam.backbone.patch_embedding(sam.image_encoder).requires_grad_(True)
    for name in UNUSED_MODULES:
        sam.get_submodule(name).requires_grad_(False)
    return sam


def encoder_is_frozen(sam: SegmentationSAM) -> bool:
    """Whether fine-tuning leaves the image encoder as it is, so that every image needs to be embedded only once."""
    return not any(parameter.requires_grad for parameter in sam.image_encoder.parameters())


def adapter_state(sam: SegmentationSAM) -> dict[str, Tensor]:
    """What fine-tuning changes: every trainable parameter, prompts, and the random positions of the tokens.

    With the published weights (if the model has any) and the same settings it rebuilds the network.

    Returns:
        Copies on the CPU, by the names in the network's state dict.
    """
    state = sam.state_dict()
    return {name: state[name].detach().to("cpu", copy=True) for name in _adapter_names(sam)}


def load_adapter_state(sam: SegmentationSAM, state: Mapping[str, Tensor]) -> None:
    """Put back what :func:`adapter_state` gave, into a network that was built and adapted in the same way.

    Args:
        sam: changed in place.
        state: tensors by name.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape; nothing has been changed then.
    """
    names = _adapter_names(sam)
    own = sam.state_dict()
    missing = [name for name in names if name not in state]
    unknown = sorted(set(state) - set(names))
    if missing or unknown:
        kind, name = ("lacks", missing[0]) if missing else ("has the unknown", unknown[0])
        raise ValueError(f"the adapter {kind} {name}: it was saved with another model or adaptation")
    for name in names:
        if state[name].shape != own[name].shape:
            raise ValueError(
                f"the adapter's {name} has the shape {list(state[name].shape)}, the network's {list(own[name].shape)}"
            )
    sam.load_state_dict(dict(state), strict=False)


def _adapter_names(sam: SegmentationSAM) -> list[str]:
    trained = [name for name, parameter in sam.named_parameters() if parameter.requires_grad]
    prompts = [] if sam.prompts is None else [f"prompts.{name}" for name, _ in sam.prompts.named_buffers()]
    return [*trained, *prompts, _TOKEN_POSITIONS]
