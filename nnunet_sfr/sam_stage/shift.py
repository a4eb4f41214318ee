"""Random translations of whole patches.

nnU-Net's augmentation has none, because its patches already fall anywhere in a volume. A patch that holds a whole
volume does not, and SAM has absolute positions to learn the place of an organ by; the authors crop at random (SFR
train_finetuning.py@dc32304b).
"""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor
from torch.nn import functional as F


class RandomShiftTransform(BasicTransform):
    """Move a patch by a random number of voxels along every axis; for nnU-Net's augmentation pipelines.

    What moves in from outside is 0, in the image and in the label map, as what lies outside a volume is for nnU-Net's
    loader.

    Args:
        fraction: the longest shift along an axis, as a share of the patch.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        longest = [round(self.fraction * length) for length in data_dict["image"].shape[1:]]
        return {"shift": [int(torch.randint(-length, length + 1, ())) for length in longest]}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return shifted(img, params["shift"])

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        return shifted(segmentation, params["shift"])


def shifted(volume: Tensor, shift: list[int]) -> Tensor:
    """Move a volume within its frame.

    Args:
        volume: [C, ...spatial].
        shift: voxels per spatial axis; positive moves to higher indices.

    Returns:
        A new tensor of the same shape: ``out[c, i] = volume[c, i - shift]``, 0 where that lies outside.
    """
    # padding by a negative number cuts; F.pad counts axes from the last
    pads = [pad for step in reversed(shift) for pad in (step, -step)]
    return F.pad(volume, pads)
