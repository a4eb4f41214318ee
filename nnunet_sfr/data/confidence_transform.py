"""Takes the map of voxel confidence through nnU-Net's augmentation, so that it stays on its voxels."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunet_sfr.data.voxel_confidence import CERTAIN


class WithVoxelConfidence(BasicTransform):
    """nnU-Net's transforms for patches whose labels have the stored voxel confidence as a second channel.

    The map moves with the image, as batchgeneratorsv2's ``regression_target``, interpolated linearly, and no intensity
    transform touches it. What lies outside of the image is background for certain.

    Args:
        transforms: nnU-Net's, for patches without the second channel.
    """

    def __init__(self, transforms: BasicTransform) -> None:
        super().__init__()
        self.transforms = transforms

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Transform one patch.

        Args:
            data_dict: ``image`` (channels, ...) and ``segmentation`` (2, ...): labels, and confidence from 0 to 255 or
                -1 for padding.

        Returns:
            ``image`` and ``segmentation``, a list: the targets as nnU-Net's transforms make them, from full resolution
            down, and last the probabilities (1, ...) at full resolution.
        """
        segmentation = data_dict["segmentation"]
        confidence = segmentation[1:2].float()
        # in terms of doubt, because the transforms fill up with 0
        doubt = torch.where(confidence < 0, 0.0, 1.0 - confidence / CERTAIN)
        result = self.transforms(image=data_dict["image"], segmentation=segmentation[:1], regression_target=doubt)
        targets = result["segmentation"]
        probabilities = 1.0 - result["regression_target"]
        return {
            "image": result["image"],
            "segmentation": [*(targets if isinstance(targets, list) else [targets]), probabilities],
        }
