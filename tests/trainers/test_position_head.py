"""The head that names a cube's position, and its loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from nnunet_sfr.trainers.cubes import CubeGrid, split_cubes
from nnunet_sfr.trainers.position_head import PositionHead, position_loss


@pytest.mark.parametrize("grid", [CubeGrid((3, 1, 2), (2, 1, 3)), CubeGrid((2, 3), (1, 2))], ids=["3 axes", "2 axes"])
def test_logits_of_every_cube(grid: CubeGrid) -> None:
    torch.manual_seed(0)
    head = PositionHead(4, grid.cube_size, grid.num_cubes)
    cubes = split_cubes(torch.randn(2, 4, *grid.patch_size), grid)
    logits = head(cubes)
    assert logits.shape == (2 * grid.num_cubes, grid.num_cubes)
    # a single cube, by hand
    expected = head.linear.weight @ cubes[5].flatten() + head.linear.bias
    torch.testing.assert_close(logits[5], expected)


def test_loss_is_that_of_the_position_in_the_grid() -> None:
    """A head that knows every position has no loss; one that is mistaken about a single cube of 12 has its share."""
    grid = CubeGrid((3, 1, 2), (2, 2, 2))
    # the intensity is the number of the position, with the last axis fastest
    numbers = torch.arange(6.0).view(3, 1, 2)
    patch = numbers.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    cubes = split_cubes(patch.expand(2, 1, 6, 2, 4), grid)
    head = PositionHead(1, (2, 2, 2), 6)
    with torch.no_grad():
        # logit_k = -50 (mean - k)^2 + const = 100 k mean - 50 k^2
        head.linear.weight.copy_((100 * torch.arange(6.0) / 8).view(6, 1).expand(6, 8))
        head.linear.bias.copy_(-50 * torch.arange(6.0) ** 2)
    assert position_loss(head, cubes, 6).item() == pytest.approx(0.0, abs=1e-6)
    exchanged = cubes.clone()
    exchanged[8] = 3.0  # cube 2 of the second item looks like cube 3: its target trails by 50
    assert position_loss(head, exchanged, 6).item() == pytest.approx(50 / 12, rel=1e-5)


def test_loss_of_a_head_that_knows_nothing() -> None:
    head = PositionHead(2, (1, 2), 6)
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    assert position_loss(head, torch.randn(12, 2, 1, 2), 6).item() == pytest.approx(math.log(6))


def test_shuffling_the_cubes_as_the_authors_do_changes_nothing() -> None:
    torch.manual_seed(0)
    head = PositionHead(4, (2, 1, 2), 6).double()
    cubes = torch.randn(12, 4, 2, 1, 2, dtype=torch.float64)
    targets = torch.arange(6).repeat(2)
    order = torch.randperm(12)
    shuffled = F.cross_entropy(head(cubes[order]), targets[order])
    torch.testing.assert_close(position_loss(head, cubes, 6), shuffled)
    # cubes alone: the loss sees which cube stands where
    assert position_loss(head, cubes[order], 6).item() != pytest.approx(shuffled.item(), rel=1e-3)


def test_gradients_reach_the_encoder_and_the_head() -> None:
    torch.manual_seed(0)
    head = PositionHead(2, (1, 2), 3).double()
    cubes = torch.randn(6, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda cubes: position_loss(head, cubes, 3), cubes)
    position_loss(head, cubes, 3).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_mistakes_are_refused() -> None:
    head = PositionHead(4, (2, 1, 3), 6)
    with pytest.raises(ValueError, match=r"expected cubes of shape \(4, 2, 1, 3\), got \(4, 3, 1, 2\)"):
        head(torch.zeros(6, 4, 3, 1, 2))
    with pytest.raises(ValueError, match="expected 6 cubes per patch, got 7"):
        position_loss(head, torch.zeros(7, 4, 2, 1, 3), 6)
