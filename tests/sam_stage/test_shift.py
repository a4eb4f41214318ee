"""Random shifts: where every voxel goes, and that image and label go together."""

from __future__ import annotations

import torch

from nnunet_sfr.sam_stage.shift import RandomShiftTransform, shifted


def test_every_voxel_goes_where_it_should() -> None:
    volume = torch.arange(1, 2 * 4 * 5 * 6 + 1).reshape(2, 4, 5, 6)
    moved = shifted(volume, [1, -2, 0])
    assert torch.equal(moved[:, 1:, :3, :], volume[:, :3, 2:, :])
    assert (moved[:, 0] == 0).all()
    assert (moved[:, :, 3:] == 0).all()
    assert torch.equal(shifted(volume, [0, 0, 0]), volume)


def test_image_and_label_move_together_and_stay_in_bounds() -> None:
    torch.manual_seed(0)
    shifts = set()
    for _ in range(60):
        image, label = torch.zeros(1, 20, 30, 10), torch.zeros(1, 20, 30, 10, dtype=torch.int16)
        image[0, 10, 15, 5], label[0, 10, 15, 5] = 7.0, 1
        out = RandomShiftTransform(0.2)(image=image, segmentation=label)
        place = tuple((out["image"][0] == 7.0).nonzero()[0].tolist())
        assert out["segmentation"][0][place] == 1
        assert out["segmentation"].dtype == torch.int16
        shifts.add(tuple(here - there for here, there in zip(place, (10, 15, 5), strict=True)))
    depth, height, width = zip(*shifts, strict=True)
    assert (min(depth), max(depth)) == (-4, 4)
    assert (min(height), max(height)) == (-6, 6)
    assert (min(width), max(width)) == (-2, 2)
