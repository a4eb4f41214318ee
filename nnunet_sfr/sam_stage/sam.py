"""SAM as a segmentation network without prompts: one output map per class, every size open.

We compose segment-anything's sub-modules (their parameter names are those of the official checkpoints) and never use
its ``Sam`` class, whose forward runs without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_sfr.sam_stage.stitching import StitchGeometry

UNUSED_MODULES = (
    "prompt_encoder.point_embeddings",
    "prompt_encoder.not_a_point_embed",
    "prompt_encoder.mask_downscaling",
    "mask_decoder.iou_prediction_head",
)
"""Parts of SAM that segmentation without prompts never reads: kept so that checkpoints fit, and always frozen."""


@dataclass(frozen=True, kw_only=True)
class SamArchitecture:
    """Every size of a SAM that does not depend on the data. The defaults are those of the official models."""

    name: str
    embed_dim: int
    """Width of the image encoder (a ViT)."""
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    """Indices of the blocks that attend over the whole image; the others attend within windows."""
    patch_size: int = 16
    """Pixels per token along each side."""
    window_size: int = 14
    """Tokens per window along each side."""
    decoder_dim: int = 256
    """Channels of the image embedding, and width of the mask decoder."""
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    decoder_heads: int = 8
    mask_prompt_channels: int = 16
    iou_head_dim: int = 256


ARCHITECTURES: dict[str, SamArchitecture] = {
    architecture.name: architecture
    for architecture in (
        # Trained from scratch, also on a CPU. Tokens of 8 pixels keep the detail of small tiles: raw maps have half the
        # canvas's size instead of a quarter.
        SamArchitecture(
            name="vit_tiny",
            embed_dim=128,
            depth=4,
            num_heads=4,
            global_blocks=(1, 3),
            patch_size=8,
            window_size=8,
            decoder_dim=64,
            decoder_mlp_dim=256,
            decoder_heads=4,
            mask_prompt_channels=4,
            iou_head_dim=64,
        ),
        SamArchitecture(name="vit_b", embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11)),
        SamArchitecture(name="vit_l", embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)),
        SamArchitecture(name="vit_h", embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)),
    )
}


class SegmentationSAM(nn.Module):
    """SAM from an image to class logits.

    Args:
        architecture: its sizes.
        image_encoder: a ViT; parameter names as in the official checkpoints, as for the other two.
        prompt_encoder: gives the no-mask embedding and the positions of the tokens.
        mask_decoder: has one mask token per class.
        input_size: side S of the image in pixels.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        *,
        architecture: SamArchitecture,
        image_encoder: ImageEncoderViT,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        input_size: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.input_size = input_size
        self.in_channels = in_channels
        for name in UNUSED_MODULES:
            self.get_submodule(name).requires_grad_(False)

    @property
    def num_classes(self) -> int:
        return int(self.mask_decoder.num_mask_tokens)

    @property
    def has_own_patch_embedding(self) -> bool:
        """Whether the number of channels asks for another patch embedding than the official one (for RGB)."""
        return encoder_channels(self.in_channels) != 3

    def forward(self, images: Tensor) -> Tensor:
        """Segment images without any prompt.

        Args:
            images: [B, in_channels, S, S], intensities as nnU-Net normalises them (not SAM's pixel mean and deviation).

        Returns:
            Logits [B, num_classes, S, S]; background is class 0.

        Raises:
            ValueError: another number of channels or size than the network was built for.
        """
        expected = (self.in_channels, self.input_size, self.input_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"expected images [B, {', '.join(map(str, expected))}], got {list(images.shape)}")
        if self.in_channels == 1:
            images = images.expand(-1, 3, -1, -1)
        embeddings = self.image_encoder(images)
        sparse, dense = self.prompt_encoder(points=None, boxes=None, masks=None)
        # predict_masks repeats the image for each prompt. We give it one empty prompt, so nothing is repeated and the
        # prompt broadcasts over the images of the batch. (MaskDecoder.forward would drop one of the maps.)
        maps, _ = self.mask_decoder.predict_masks(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        size = (self.input_size, self.input_size)
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class StitchedSAM(nn.Module):
    """A 3D segmentation network: stitch a patch, segment the stitched image, bring the logits back.

    Args:
        sam: the network for the stitched image.
        geometry: how the patch is stitched.

    Raises:
        ValueError: the canvas does not have the size of SAM's input.
    """

    def __init__(self, sam: SegmentationSAM, geometry: StitchGeometry) -> None:
        super().__init__()
        if geometry.canvas_size != sam.input_size:
            raise ValueError(f"the canvas has {geometry.canvas_size} pixels, but SAM was built for {sam.input_size}")
        self.sam = sam
        self.geometry = geometry

    def forward(self, volume: Tensor) -> Tensor:
        """Segment patches.

        Args:
            volume: [B, in_channels, D, H, W], normalised intensities.

        Returns:
            Logits [B, num_classes, D, H, W].
        """
        return self.geometry.unstitch(self.forward_canvas(volume))

    def forward_canvas(self, volume: Tensor) -> Tensor:
        """Logits of the stitched image, [B, num_classes, S, S]: what the fine-tuning loss compares."""
        logits: Tensor = self.sam(self.geometry.stitch(volume))
        return logits


def encoder_channels(in_channels: int) -> int:
    """Channels of the patch embedding: a single channel is copied to three (paper), others are taken as they are."""
    return 3 if in_channels == 1 else in_channels


def build_sam(model: str | SamArchitecture, *, input_size: int, in_channels: int, num_classes: int) -> SegmentationSAM:
    """Build a SAM with random weights; everything that is used is trainable.

    Args:
        model: a name in ``ARCHITECTURES``, or the sizes themselves.
        input_size: side of the image in pixels, a multiple of the ViT's patch.
        in_channels: channels of the image.
        num_classes: output maps, background included.

    Raises:
        ValueError: an unknown name, or a number that does not fit.
    """
    architecture = _find_architecture(model)
    patch = architecture.patch_size
    if input_size < patch or input_size % patch:
        raise ValueError(f"the canvas must be a multiple of {architecture.name}'s patch, {patch}; got {input_size}")
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 (background and one class), got {num_classes}")
    return SegmentationSAM(
        architecture=architecture,
        image_encoder=_build_image_encoder(architecture, input_size=input_size, in_channels=in_channels),
        prompt_encoder=_build_prompt_encoder(architecture, input_size=input_size),
        mask_decoder=_build_mask_decoder(architecture, num_classes=num_classes),
        input_size=input_size,
        in_channels=in_channels,
    )


def _find_architecture(model: str | SamArchitecture) -> SamArchitecture:
    if isinstance(model, SamArchitecture):
        return model
    if model not in ARCHITECTURES:
        raise ValueError(f"model must be one of {', '.join(ARCHITECTURES)}, got {model!r}")
    return ARCHITECTURES[model]


def _build_image_encoder(architecture: SamArchitecture, *, input_size: int, in_channels: int) -> ImageEncoderViT:
    encoder = ImageEncoderViT(
        img_size=input_size,
        patch_size=architecture.patch_size,
        in_chans=encoder_channels(in_channels),
        embed_dim=architecture.embed_dim,
        depth=architecture.depth,
        num_heads=architecture.num_heads,
        mlp_ratio=4,
        out_chans=architecture.decoder_dim,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_abs_pos=True,
        use_rel_pos=True,
        window_size=architecture.window_size,
        global_attn_indexes=architecture.global_blocks,
    )
    # segment-anything leaves zeros for the checkpoint to fill; a network from scratch starts as ViT does.
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    return encoder


def _build_prompt_encoder(architecture: SamArchitecture, *, input_size: int) -> PromptEncoder:
    tokens = input_size // architecture.patch_size
    return PromptEncoder(
        embed_dim=architecture.decoder_dim,
        image_embedding_size=(tokens, tokens),
        input_image_size=(input_size, input_size),
        mask_in_chans=architecture.mask_prompt_channels,
    )


def _build_mask_decoder(architecture: SamArchitecture, *, num_classes: int) -> MaskDecoder:
    return MaskDecoder(
        num_multimask_outputs=num_classes - 1,
        transformer=TwoWayTransformer(
            depth=architecture.decoder_depth,
            embedding_dim=architecture.decoder_dim,
            mlp_dim=architecture.decoder_mlp_dim,
            num_heads=architecture.decoder_heads,
        ),
        transformer_dim=architecture.decoder_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=architecture.iou_head_dim,
    )
