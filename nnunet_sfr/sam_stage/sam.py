"""SAM as a segmentation network without points or boxes: one output map per class, every size open.

We compose segment-anything's prompt encoder and mask decoder (their parameter names are those of the published
checkpoints) with an image encoder of :mod:`nnunet_sfr.sam_stage.backbones`, and never use segment-anything's ``Sam``
class, whose forward runs without gradients.
"""

from __future__ import annotations

from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_sfr.sam_models import DecoderSizes, SAMModel, find_model
from nnunet_sfr.sam_stage.backbones import find_backbone
from nnunet_sfr.sam_stage.backbones.backbone import check_stride
from nnunet_sfr.sam_stage.input_channels import encoder_channels, has_own_first_layer
from nnunet_sfr.sam_stage.stitching import StitchGeometry

UNUSED_MODULES = (
    "prompt_encoder.point_embeddings",
    "prompt_encoder.not_a_point_embed",
    "prompt_encoder.mask_downscaling",
    "mask_decoder.iou_prediction_head",
)
"""Parts of SAM that segmentation without points, boxes and masks never reads: kept so that checkpoints fit, and always
frozen."""


class SegmentationSAM(nn.Module):
    """SAM from an image to class logits, in two halves: :meth:`encode` and :meth:`decode`.

    Args:
        model: its record.
        image_encoder: of the model's backbone.
        prompt_encoder: gives the no-mask embedding and the positions of the image embedding.
        mask_decoder: has one mask token per class.
        input_size: side S of the image in pixels.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        *,
        model: SAMModel,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        input_size: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.backbone = find_backbone(model)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.prompts: nn.Module | None = None
        """Gives prompt tokens [1, n, dim] in the place of points and boxes; an adaptation may set it."""
        self.input_size = input_size
        self.in_channels = in_channels
        for name in UNUSED_MODULES:
            self.get_submodule(name).requires_grad_(False)

    @property
    def num_classes(self) -> int:
        return int(self.mask_decoder.num_mask_tokens)

    @property
    def has_own_patch_embedding(self) -> bool:
        """Whether the number of channels asks for another first layer than the published one (for RGB)."""
        return has_own_first_layer(self.in_channels)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the embedding of one image."""
        side = self.input_size // self.model.stride
        return self.model.decoder.dim, side, side

    def encode(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: [B, in_channels, S, S], intensities as the model's record asks for
                (:mod:`nnunet_sfr.sam_stage.intensities`).

        Returns:
            [B, dim, S / stride, S / stride].

        Raises:
            ValueError: another number of channels or size than the network was built for.
        """
        embeddings: Tensor = self.image_encoder(self.as_encoder_input(images))
        return embeddings

    def encoder_of_images(self) -> nn.Module:
        """:meth:`encode` as a module of its own."""
        return _Encode(self)

    def as_encoder_input(self, images: Tensor) -> Tensor:
        """Check images [B, in_channels, S, S] and copy a single channel to three.

        Raises:
            ValueError: another number of channels or size than the network was built for.
        """
        expected = (self.in_channels, self.input_size, self.input_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"expected images [B, {', '.join(map(str, expected))}], got {list(images.shape)}")
        return images.expand(-1, 3, -1, -1) if self.in_channels == 1 else images

    def decode(self, embeddings: Tensor) -> Tensor:
        """Class logits from image embeddings.

        Args:
            embeddings: [B, dim, S / stride, S / stride].

        Returns:
            [B, num_classes, S, S]; background is class 0.
        """
        sparse, dense = self.prompt_encoder(points=None, boxes=None, masks=None)
        if self.prompts is not None:
            sparse = self.prompts()
        # predict_masks repeats the image for each prompt. We give it one set of prompts, so nothing is repeated and it
        # broadcasts over the images of the batch. (MaskDecoder.forward would drop one of the maps.)
        maps: Tensor
        maps, _ = self.mask_decoder.predict_masks(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        size = (self.input_size, self.input_size)
        if maps.shape[2:] == size:
            return maps
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """:meth:`encode` and :meth:`decode`: images [B, in_channels, S, S] to logits [B, num_classes, S, S]."""
        return self.decode(self.encode(images))


class _Encode(nn.Module):
    def __init__(self, sam: SegmentationSAM) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, images: Tensor) -> Tensor:
        return self.sam.encode(images)


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
            volume: [B, in_channels, D, H, W], intensities as the model's record asks for.

        Returns:
            Logits [B, num_classes, D, H, W].
        """
        return self.geometry.unstitch(self.sam(self.geometry.stitch(volume)))


def build_sam(model: str | SAMModel, *, input_size: int, in_channels: int, num_classes: int) -> SegmentationSAM:
    """Build a SAM with random weights; everything that is used is trainable.

    Args:
        model: a name in :data:`nnunet_sfr.sam_models.MODELS`, or a record.
        input_size: side of the image in pixels, a multiple of the model's stride.
        in_channels: channels of the image.
        num_classes: output maps, background included.

    Raises:
        ValueError: an unknown name, or a number that does not fit.
    """
    record = find_model(model) if isinstance(model, str) else model
    check_stride(record, record.stride, input_size)
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 (background and one class), got {num_classes}")
    return SegmentationSAM(
        model=record,
        image_encoder=find_backbone(record).build(record, input_size, encoder_channels(in_channels)),
        prompt_encoder=_build_prompt_encoder(record, input_size),
        mask_decoder=_build_mask_decoder(record.decoder, num_classes),
        input_size=input_size,
        in_channels=in_channels,
    )


def with_encoder(sam: SegmentationSAM, encoder: nn.Module) -> SegmentationSAM:
    """The same SAM with another image encoder; everything else is shared with the original.

    Args:
        sam: stays as it is.
        encoder: from images [B, channels, S, S] to embeddings [B, dim, h, w].
    """
    other = SegmentationSAM(
        model=sam.model,
        image_encoder=encoder,
        prompt_encoder=sam.prompt_encoder,
        mask_decoder=sam.mask_decoder,
        input_size=sam.input_size,
        in_channels=sam.in_channels,
    )
    other.prompts = sam.prompts
    return other


def _build_prompt_encoder(model: SAMModel, input_size: int) -> PromptEncoder:
    side = input_size // model.stride
    return PromptEncoder(
        embed_dim=model.decoder.dim,
        image_embedding_size=(side, side),
        input_image_size=(input_size, input_size),
        mask_in_chans=model.decoder.mask_prompt_channels,
    )


def _build_mask_decoder(sizes: DecoderSizes, num_classes: int) -> MaskDecoder:
    return MaskDecoder(
        num_multimask_outputs=num_classes - 1,
        transformer=TwoWayTransformer(
            depth=sizes.depth, embedding_dim=sizes.dim, mlp_dim=sizes.mlp_dim, num_heads=sizes.num_heads
        ),
        transformer_dim=sizes.dim,
        iou_head_depth=3,
        iou_head_hidden_dim=sizes.iou_head_dim,
    )
