"""SAM without prompts gives one map per class, for every image of a batch, at every size."""

from __future__ import annotations

from typing import Any

import pytest
import segment_anything
import torch
from torch.nn import functional as F

from nnunet_sfr.sam_models import MODELS, SAMModel, ViTSizes
from nnunet_sfr.sam_stage.sam import UNUSED_MODULES, StitchedSAM, build_sam
from nnunet_sfr.sam_stage.stitching import StitchGeometry


@pytest.mark.parametrize("model", ["vit_b", "vit_l", "vit_h"])
def test_names_and_shapes_are_the_official_ones(model: str) -> None:
    with torch.device("meta"):
        ours = build_sam(model, input_size=1024, in_channels=3, num_classes=4)
        official = segment_anything.sam_model_registry[model]()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in official.state_dict().items()}
    blocks: Any = ours.image_encoder.blocks
    windows = [block.window_size for block in blocks]
    assert windows == [block.window_size for block in official.image_encoder.blocks]


def test_batch_equals_one_image_at_a_time(small: SAMModel) -> None:
    torch.manual_seed(0)
    sam = build_sam(small, input_size=64, in_channels=3, num_classes=3)
    images = torch.randn(3, 3, 64, 64)
    together = sam(images)
    assert together.shape == (3, 3, 64, 64)
    assert not torch.allclose(together[0], together[1])
    for index in range(3):
        torch.testing.assert_close(together[index], sam(images[index : index + 1])[0], rtol=1e-4, atol=1e-5)


def test_equals_the_official_decoder_called_for_each_image(small: SAMModel) -> None:
    """MaskDecoder.forward drops the first map: the others must agree, after the same upsampling."""
    torch.manual_seed(1)
    sam = build_sam(small, input_size=64, in_channels=3, num_classes=4)
    images = torch.randn(2, 3, 64, 64)
    embeddings = sam.image_encoder(images)
    for embedding, logits in zip(embeddings, sam(images), strict=True):
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        maps, _ = sam.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        upsampled = F.interpolate(maps, (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits[1:], upsampled[0], rtol=1e-4, atol=1e-5)


def test_one_channel_is_copied_to_three(small: SAMModel) -> None:
    torch.manual_seed(2)
    grey = build_sam(small, input_size=32, in_channels=1, num_classes=2)
    colour = build_sam(small, input_size=32, in_channels=3, num_classes=2)
    colour.load_state_dict(grey.state_dict())
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(grey(image), colour(image.repeat(1, 3, 1, 1)))
    assert not grey.has_own_patch_embedding


@pytest.mark.parametrize("in_channels", [2, 4])
def test_other_channel_counts_have_their_own_patch_embedding(small: SAMModel, in_channels: int) -> None:
    sam = build_sam(small, input_size=32, in_channels=in_channels, num_classes=2)
    assert sam.has_own_patch_embedding
    assert sam(torch.randn(1, in_channels, 32, 32)).shape == (1, 2, 32, 32)


def test_gradients_reach_everything_that_is_used(small: SAMModel) -> None:
    torch.manual_seed(3)
    sam = build_sam(small, input_size=64, in_channels=1, num_classes=3)
    sam(torch.randn(2, 1, 64, 64)).square().mean().backward()
    for name, parameter in sam.named_parameters():
        unused = name.startswith(UNUSED_MODULES)
        assert parameter.requires_grad != unused, name
        assert (parameter.grad is None) == unused, name


def test_vit_tiny_sees_half_resolution() -> None:
    tiny = MODELS["vit_tiny"].encoder
    assert isinstance(tiny, ViTSizes)
    torch.manual_seed(4)
    sam = build_sam("vit_tiny", input_size=64, in_channels=1, num_classes=2)
    shapes = []
    sam.mask_decoder.output_upscaling.register_forward_hook(lambda *call: shapes.append(call[2].shape[-2:]))
    assert sam(torch.randn(1, 1, 64, 64)).shape == (1, 2, 64, 64)
    assert shapes == [(32, 32)]
    positions: Any = sam.image_encoder.pos_embed
    assert positions.std().item() == pytest.approx(0.02, rel=0.1)
    assert max(tiny.global_blocks) == tiny.depth - 1


def test_vit_tiny_learns_a_stitched_volume() -> None:
    """Fails if logits and voxels are misaligned: the target is a threshold on single voxels' neighbourhoods."""
    torch.manual_seed(5)
    geometry = StitchGeometry((4, 16, 16), 32)
    model = StitchedSAM(build_sam("vit_tiny", input_size=32, in_channels=1, num_classes=2), geometry)
    volume = torch.randn(1, 1, 4, 16, 16) * 0.1
    volume[:, :, 1:3, 2:10, 5:14] += 2
    target = (volume[:, 0] > 1).long()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(volume), target).backward()
        optimizer.step()
    prediction = model(volume).argmax(1)
    overlap = 2 * (prediction * target).sum() / (prediction.sum() + target.sum())
    assert overlap > 0.9


def test_stitched_sam_is_the_three_steps_in_a_row(small: SAMModel) -> None:
    torch.manual_seed(6)
    geometry = StitchGeometry((5, 15, 20), 64)
    sam = build_sam(small, input_size=64, in_channels=2, num_classes=3)
    model = StitchedSAM(sam, geometry)
    volume = torch.randn(2, 2, 5, 15, 20)
    canvas = sam(geometry.stitch(volume))
    logits = model(volume)
    assert logits.shape == (2, 3, 5, 15, 20)
    assert torch.equal(logits, geometry.unstitch(canvas))


def test_numbers_that_do_not_fit_are_refused(small: SAMModel) -> None:
    with pytest.raises(ValueError, match=rf"multiple of {small.name}'s stride, 16; got 40"):
        build_sam(small, input_size=40, in_channels=1, num_classes=2)
    with pytest.raises(ValueError, match="in_channels"):
        build_sam(small, input_size=32, in_channels=0, num_classes=2)
    with pytest.raises(ValueError, match="num_classes"):
        build_sam(small, input_size=32, in_channels=1, num_classes=1)
    with pytest.raises(ValueError, match="must be one of lite_medsam, mobile_sam, medsam, vit_b"):
        build_sam("vit_g", input_size=32, in_channels=1, num_classes=2)
    sam = build_sam(small, input_size=32, in_channels=1, num_classes=2)
    with pytest.raises(ValueError, match=r"\[B, 1, 32, 32\]"):
        sam(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="built for 32"):
        StitchedSAM(sam, StitchGeometry((4, 16, 16), 64))
