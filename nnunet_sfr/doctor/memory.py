"""What each stage is expected to need of the device's memory, and of the main memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.devices import autocast
from nnunet_sfr.doctor.device import device_memory, main_memory
from nnunet_sfr.doctor.findings import Finding, note, ok, problem
from nnunet_sfr.doctor.footprint import forward_pass
from nnunet_sfr.doctor.plan import volumes
from nnunet_sfr.doctor.sam import empty_sam
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.sam_stage.adaptation import adapt, encoder_is_frozen
from nnunet_sfr.sam_stage.examples import CanvasLogits
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.layers.checkpointing import checkpoint_blocks
from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
from nnunet_sfr.sam_stage.model import for_inference
from nnunet_sfr.sam_stage.sam import StitchedSAM
from nnunet_sfr.sam_stage.stitching import geometry_of
from nnunet_sfr.settings import FineTuningSettings
from nnunet_sfr.trainers.methods import METHODS
from nnunet_sfr.wording import GIB, gib

CUDA_ITSELF = GIB // 2
"""Bytes that CUDA's context and libraries take beside torch's tensors."""

ADAM_STATES, SGD_STATES = 2, 1

NNUNET_REFERENCE_GB = 8
"""What nnU-Net's planners take the following numbers to need."""
NNUNET_REFERENCE_VOXELS = {"PlainConvUNet": (85e6, 560e6), "ResidualEncoderUNet": (135e6, 680e6)}
"""Feature-map voxels of one patch, in 2D and in 3D, by network (``UNet_reference_val_2d`` and ``_3d``)."""
NNUNET_REFERENCE_BATCH = (12, 2)
"""Patches in a batch that they go with, in 2D and in 3D."""

PREDICTING_BYTES, CONFIDENCE_BYTES = (19, 24), (4, 77)
"""Main memory for one voxel of a case that is being labelled: for each class, and beside. The most is needed while the
last mirrored image is predicted, or with few classes while its confidence is computed. Measured with 2 to 14."""


def check_fine_tuning(dataset: SFRDataset, device: torch.device) -> list[Finding]:
    """A step of SAM's fine-tuning, or embedding a view for it if that needs more.

    Args:
        dataset: planned.
        device: that will compute.
    """
    settings = dataset.settings
    model = _stitched_sam(dataset)
    embedded = encoder_is_frozen(model.sam)
    if settings.fine_tuning.activation_checkpointing and not embedded:
        checkpoint_blocks(model.sam.backbone.blocks(model.sam.image_encoder))
    batch_size = settings.fine_tuning.batch_size
    inputs = (batch_size, *(model.sam.embedding_shape if embedded else _canvas(model)))
    step = _FineTuningStep(CanvasLogits(model, embedded=embedded), settings.fine_tuning, device).train()
    needed = forward_pass(step, inputs, device, gradients=True).training_peak(optimizer_states=ADAM_STATES)
    if embedded:
        needed = max(needed, _embedding_peak(model, device))
    remedy = "lower fine_tuning.batch_size in the SFR plan, or plan with a smaller -sam"
    return [_finding("fine-tuning", needed, device, remedy)]


def labelling_bytes(num_classes: int) -> int:
    """Main memory for one voxel of a case that is being labelled.

    Args:
        num_classes: background included.
    """
    return max(per_class * num_classes + beside for per_class, beside in (PREDICTING_BYTES, CONFIDENCE_BYTES))


def check_pseudo_labelling(dataset: SFRDataset, device: torch.device) -> list[Finding]:
    """SAM's forward pass, and the probabilities of the largest case, which lie in main memory.

    Args:
        dataset: planned.
        device: that will compute.
    """
    model = _stitched_sam(dataset)
    network = _Predicting(for_inference(model), device).eval()
    needed = forward_pass(network, _patch_of(dataset), device, gradients=False).peak
    largest = max(int(np.prod(shape)) for shape in volumes(dataset, read_fingerprint(dataset.paths.fingerprint_file)))
    maps = largest * labelling_bytes(dataset.num_classes)
    if device.type == "cpu":
        # where the encoder lies twice: as it was fine-tuned, and in its form for inference
        needed, beside = needed + _encoder_bytes(model) + maps, ""
    else:
        beside = f", and {gib(maps)} of main memory for the probabilities of the largest case"
    memory = main_memory()
    if memory is not None and maps > memory:
        text = f"about {gib(maps)} of main memory for the probabilities of the largest case; there are {gib(memory)}"
        return [problem("pseudo-labels", text, "plan with a coarser -overwrite_target_spacing")]
    return [_finding("pseudo-labels", needed, device, "plan with a smaller -sam", beside)]


def check_retraining(dataset: SFRDataset, device: torch.device) -> list[Finding]:
    """A step of nnU-Net, and of our trainers relative to it.

    Args:
        dataset: planned.
        device: that will compute.
    """
    configuration = dataset.configuration_manager
    with torch.device("meta"):
        network = nnUNetTrainer.build_network_architecture(
            dataset.plans_manager,
            configuration,
            dataset.num_input_channels,
            dataset.label_manager.num_segmentation_heads,
            True,
        )
    try:
        if device.type == "cuda":
            nnunet = nnunets_own_estimate(network, configuration.patch_size, configuration.batch_size)
        else:
            nnunet = _counted(network, dataset, device)
    except Exception as error:  # a network of others may not allow it, in whatever way
        return [
            note("re-training", f"cannot be estimated for {type(network).__name__} ({type(error).__name__}: {error})")
        ]
    factors = {name: method.relative_memory for name, method in METHODS.items()}
    methods = ", ".join(f"{name} {gib(factor * nnunet)}" for name, factor in factors.items())
    text = f"about {gib(nnunet)} for nnU-Net itself, {methods} (estimated)"
    there = device_memory(device)
    too_large = [name for name, factor in factors.items() if there is not None and factor * nnunet > there]
    if not too_large:
        return [ok("re-training", text)]
    finding = problem if len(too_large) == len(factors) else note
    text += f"; {device.type} has {gib(there or 0)}, too little for {', '.join(too_large)}"
    return [finding("re-training", text, "lower batch_size in nnU-Net's plan, or plan with a lower -gpu_memory_target")]


def nnunets_own_estimate(network: nn.Module, patch_size: Sequence[int], batch_size: int) -> float:
    """Bytes of a training step on a GPU by the rule of nnU-Net's planners, which everything on the GPU has part in.

    Args:
        network: of one of the two architectures that nnU-Net plans.
        patch_size: of the plan.
        batch_size: of the plan.
    """
    is_3d = len(patch_size) == 3
    voxels = network.compute_conv_feature_map_size(patch_size)  # type: ignore[operator]
    share = voxels / NNUNET_REFERENCE_VOXELS[type(network).__name__][is_3d]
    return float(NNUNET_REFERENCE_GB * GIB * share * batch_size / NNUNET_REFERENCE_BATCH[is_3d])


def _counted(network: nn.Module, dataset: SFRDataset, device: torch.device) -> float:
    configuration = dataset.configuration_manager
    shape = (configuration.batch_size, dataset.num_input_channels, *configuration.patch_size)
    step = _SupervisedStep(network, device).train()
    return forward_pass(step, shape, device, gradients=True).training_peak(optimizer_states=SGD_STATES)


def _finding(subject: str, needed: int, device: torch.device, remedy: str, beside: str = "") -> Finding:
    needed += CUDA_ITSELF if device.type == "cuda" else 0
    text = f"about {gib(needed)} (estimated){beside}"
    there = device_memory(device)
    if there is None or needed <= there:
        return ok(subject, text)
    return problem(subject, f"{text}; {device.type} has {gib(there)}", remedy)


def _stitched_sam(dataset: SFRDataset) -> StitchedSAM:
    # not within the context of the meta device: adaptations compute with numbers, as that of rows of a projection
    sam = adapt(empty_sam(dataset), dataset.settings.sam)
    # a few tokens, that depend on numbers which are not there
    sam.prompts = None
    return StitchedSAM(sam, geometry_of(dataset.settings.stitching))


def _embedding_peak(model: StitchedSAM, device: torch.device) -> int:
    """Bytes at the highest while one view is embedded; the encoder that is in the model stays beside the frozen one."""
    encoder = for_inference(model).sam.encoder_of_images().eval()
    return forward_pass(encoder, (1, *_canvas(model)), device, gradients=False).peak + _encoder_bytes(model)


def _canvas(model: StitchedSAM) -> tuple[int, int, int]:
    """Shape (channels, S, S) of a stitched image."""
    return model.sam.in_channels, model.sam.input_size, model.sam.input_size


def _encoder_bytes(model: StitchedSAM) -> int:
    return sum(parameter.nbytes for parameter in model.sam.image_encoder.parameters())


def _patch_of(dataset: SFRDataset) -> tuple[int, ...]:
    """Shape (1, channels, D, H, W) of what SAM labels at a time."""
    return (1, dataset.num_input_channels, *dataset.settings.stitching.patch_size)


class _FineTuningStep(nn.Module):
    """From a batch to the loss, as a step of fine-tuning computes it."""

    def __init__(self, logits: CanvasLogits, settings: FineTuningSettings, device: torch.device) -> None:
        super().__init__()
        self.logits, self.settings, self.device = logits, settings, device

    def forward(self, inputs: Tensor) -> Tensor:
        with autocast(self.device):
            logits = self.logits(inputs)
        loss, _ = stitched_segmentation_loss(
            logits,
            torch.zeros((len(logits), *logits.shape[2:]), dtype=torch.int64, device=logits.device),
            ignore_index=IGNORE_INDEX,
            cross_entropy_weight=self.settings.cross_entropy_weight,
            dice_weight=self.settings.dice_weight,
        )
        return loss


class _Predicting(nn.Module):
    """From a patch (1, channels, D, H, W) to its probabilities."""

    def __init__(self, model: StitchedSAM, device: torch.device) -> None:
        super().__init__()
        self.model, self.device = model, device

    def forward(self, volume: Tensor) -> Tensor:
        with autocast(self.device):
            logits = self.model(volume)
        return torch.softmax(logits.float(), dim=1)


class _SupervisedStep(nn.Module):
    """From a batch to nnU-Net's loss at full resolution; those of deep supervision are an eighth of it and less."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
        self.loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self.network(images)
        target = torch.zeros((len(images), 1, *images.shape[2:]), device=images.device)
        return [self.loss(outputs[0], target), *outputs]
