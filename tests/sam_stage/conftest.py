"""A SAM that is small enough to run in milliseconds, with every part of the large ones."""

from __future__ import annotations

import pytest

from nnunet_sfr.sam_stage.sam import SamArchitecture

SMALL = SamArchitecture(
    name="small",
    embed_dim=48,
    depth=2,
    num_heads=3,
    global_blocks=(1,),
    window_size=3,
    decoder_dim=32,
    decoder_mlp_dim=48,
    decoder_heads=4,
    mask_prompt_channels=4,
    iou_head_dim=32,
)
"""The sizes of the golden vectors in samed_lora.npz. At 64 pixels it has 4 x 4 tokens, so windows of 3 need padding."""


@pytest.fixture(scope="session")
def small() -> SamArchitecture:
    return SMALL
