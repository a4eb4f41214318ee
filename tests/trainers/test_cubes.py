"""The grid of cubes: its plan, and cutting, mixing and putting together against the authors' code."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers.cubes import (
    CubeGrid,
    draw_permutation,
    join_cubes,
    partition,
    plan_cube_grid,
    recover,
    split_cubes,
)
from tests.conftest import Golden

CPU = torch.device("cpu")

CROSS_GRIDS = {
    "cross2": CubeGrid((2, 2, 2), (6, 6, 6)),
    "cross3": CubeGrid((3, 3, 3), (8, 8, 8)),
    "cross4": CubeGrid((4, 4, 4), (4, 4, 4)),
}
CROSS_SEEDS = {"cross2": 1403, "cross3": 1401, "cross4": 1402}

CUT_GRIDS = {"grid": CubeGrid((3, 3, 3), (4, 4, 4)), "gridnc": CubeGrid((2, 3, 4), (4, 4, 4))}

# no two axes alike, so that exchanged axes are seen
UNEVEN_GRIDS = [
    CubeGrid((3, 1, 2), (2, 5, 3)),
    CubeGrid((2, 3, 4), (3, 2, 1)),
    CubeGrid((1, 1, 1), (2, 3, 4)),
    CubeGrid((3, 2), (2, 5)),
    CubeGrid((1, 4), (3, 2)),
]


def numbered_voxels(batch_size: int, channels: int, grid: CubeGrid) -> torch.Tensor:
    """Every voxel another number, exact in float64."""
    shape = (batch_size, channels, *grid.patch_size)
    return torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)


def mixing_permutation(batch_size: int, grid: CubeGrid) -> torch.Tensor:
    """Cycles of the whole batch by 1, 2, 3, ... items: not its own inverse, so that a mistaken inverse is seen."""
    steps = 1 + torch.arange(grid.num_cubes).view(grid.cubes_per_axis)
    items = torch.arange(batch_size).view(-1, *(1 for _ in grid.cubes_per_axis))
    permutation = (items + steps) % batch_size
    assert not torch.equal(permutation, permutation.argsort(dim=0))
    return permutation


# --- the plan ---


@pytest.mark.parametrize(
    ("patch_size", "stride", "cubes", "cube_size"),
    [
        ((96, 96, 96), (16, 16, 16), (3, 3, 3), (32, 32, 32)),
        # m = (3, 5, 6): of 1 and 5, equally far from 3, the smaller
        ((24, 40, 48), (8, 8, 8), (3, 1, 3), (8, 40, 16)),
        ((128, 128, 128), (32, 32, 32), (2, 2, 2), (64, 64, 64)),
        # another stride on every axis, m = (8, 9, 6)
        ((16, 72, 96), (2, 8, 16), (2, 3, 3), (8, 24, 32)),
        # 3x3x3 and 2x2 would leave one bottleneck voxel; the first of equal axes gives way, and no other
        ((96, 96, 96), (32, 32, 32), (1, 3, 3), (96, 32, 32)),
        ((64, 64), (32, 32), (1, 2), (64, 32)),
        # m = (2, 3): the axis with more cubes gives way
        ((64, 96), (32, 32), (2, 1), (32, 96)),
        # m = (5, 5) and (5, 7): no axis would be cut, so the longest is
        ((160, 160), (32, 32), (5, 1), (32, 160)),
        ((160, 224), (32, 32), (1, 7), (160, 32)),
        # the longest in voxels of the patch, not of the bottleneck: m = (7, 5)
        ((56, 160), (8, 32), (1, 5), (56, 32)),
        # m = (5, 1, 5): the longest axis is a single bottleneck voxel, so the next one is cut
        ((20, 64, 20), (4, 64, 4), (5, 1, 1), (4, 64, 20)),
    ],
)
def test_plan(
    patch_size: tuple[int, ...], stride: tuple[int, ...], cubes: tuple[int, ...], cube_size: tuple[int, ...]
) -> None:
    grid = plan_cube_grid(patch_size, stride)
    assert grid == CubeGrid(cubes, cube_size)
    assert grid.patch_size == patch_size
    assert grid.num_cubes == math.prod(cubes)


def test_plan_keeps_its_promises_for_every_bottleneck() -> None:
    refused = []
    for bottleneck in np.ndindex(9, 9, 4):
        sizes = tuple(m + 1 for m in bottleneck)
        try:
            grid = plan_cube_grid([4 * m for m in sizes], [4, 4, 4])
        except UserError:
            refused.append(sizes)
            continue
        assert grid.num_cubes > 1
        assert all(edge % 4 == 0 for edge in grid.cube_size)
        assert grid.patch_size == tuple(4 * m for m in sizes)
        assert math.prod(edge // 4 for edge in grid.cube_size) > 1
    # a single axis of prime length (or none) has no cut that leaves two voxels
    assert len(refused) == 1 + 4 + 4 + 2
    assert all(sorted(sizes)[:2] == [1, 1] and max(sizes) in {1, 2, 3, 5, 7} for sizes in refused)


def test_plan_follows_the_wish() -> None:
    assert plan_cube_grid((96, 96), (8, 8), wanted=4).cubes_per_axis == (4, 4)
    assert plan_cube_grid((96, 96), (8, 8), wanted=5).cubes_per_axis == (4, 4)
    assert plan_cube_grid((96, 96), (8, 8), wanted=2).cubes_per_axis == (2, 2)
    # 4x4 would leave one bottleneck voxel; an axis gives way by one divisor only
    assert plan_cube_grid((16, 16), (4, 4), wanted=4).cubes_per_axis == (2, 4)


@pytest.mark.parametrize("patch_size", [(32, 32), (32, 160)])
def test_plan_refuses_what_cannot_be_cut(patch_size: tuple[int, int]) -> None:
    with pytest.raises(UserError) as error:
        plan_cube_grid(patch_size, (32, 32))
    message = str(error.value)
    assert f"a patch of {patch_size[0]}x{patch_size[1]} voxels" in message
    assert "stride 32x32" in message
    assert "MagicNet cannot cut it" in message


def test_plan_wants_multiples_of_the_stride() -> None:
    with pytest.raises(ValueError, match="96x100 must be a multiple of the total stride 16x16"):
        plan_cube_grid((96, 100), (16, 16))
    with pytest.raises(ValueError, match="96x96x96 must be a multiple of the total stride 16x16 on every axis"):
        plan_cube_grid((96, 96, 96), (16, 16))


# --- across images ---


@pytest.mark.parametrize("name", CROSS_GRIDS)
def test_permutation_of_a_seed_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    magicnet = golden("magicnet")
    expected = magicnet[f"{name}.perm"]
    torch.manual_seed(CROSS_SEEDS[name])
    permutation = draw_permutation(expected.shape[0], CROSS_GRIDS[name], CPU)
    assert permutation.dtype == torch.int64
    np.testing.assert_array_equal(permutation.numpy(), expected)


@pytest.mark.parametrize("name", CROSS_GRIDS)
def test_partition_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    magicnet = golden("magicnet")
    volume, permutation = (torch.from_numpy(magicnet[f"{name}.{key}"]) for key in ("volume", "perm"))
    mixed = partition(volume, permutation, CROSS_GRIDS[name])
    np.testing.assert_array_equal(mixed.numpy(), magicnet[f"{name}.mixed"])
    assert not torch.equal(mixed, volume)


@pytest.mark.parametrize("name", ["cross2", "cross4"])
def test_recover_equals_the_authors(golden: Callable[[str], Golden], name: str) -> None:
    magicnet = golden("magicnet")
    mixed, permutation = (torch.from_numpy(magicnet[f"{name}.{key}"]) for key in ("mixed", "perm"))
    factors = torch.arange(16.0).view(1, 16, 1, 1, 1)
    recovered = recover((factors + 1) * mixed + factors, permutation, CROSS_GRIDS[name])
    np.testing.assert_array_equal(recovered[:, 15].numpy(), magicnet[f"{name}.recovered_ch15"])


@pytest.mark.parametrize("grid", UNEVEN_GRIDS, ids=str)
def test_recover_undoes_partition(grid: CubeGrid) -> None:
    x = numbered_voxels(3, 2, grid)
    permutation = mixing_permutation(3, grid)
    mixed = partition(x, permutation, grid)
    assert not torch.equal(mixed, x)
    assert torch.equal(recover(mixed, permutation, grid), x)
    assert torch.equal(partition(recover(x, permutation, grid), permutation, grid), x)


@pytest.mark.parametrize("grid", UNEVEN_GRIDS, ids=str)
def test_partition_takes_each_voxel_once_from_its_own_place(grid: CubeGrid) -> None:
    x = numbered_voxels(3, 2, grid)
    permutation = mixing_permutation(3, grid)
    mixed = partition(x, permutation, grid)
    voxels, counts = torch.unique(mixed, return_counts=True)
    assert torch.equal(voxels, x.flatten())
    assert (counts == 1).all()
    # the number of a voxel tells its item and its place in it
    per_item = x[0].numel()
    assert torch.equal(mixed % per_item, x % per_item)
    sources = permutation
    for axis, edge in enumerate(grid.cube_size, start=1):
        sources = sources.repeat_interleave(edge, dim=axis)
    assert torch.equal((mixed[:, 0] // per_item).long(), sources)


def test_permutations_differ_between_positions_and_draws() -> None:
    grid = CubeGrid((3, 3, 3), (2, 2, 2))
    torch.manual_seed(0)
    first, second = draw_permutation(4, grid, CPU), draw_permutation(4, grid, CPU)
    assert torch.equal(first.sort(dim=0).values, torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 3, 3))
    assert len(torch.unique(first.flatten(1), dim=1).T) > 5
    assert not torch.equal(first, second)


# --- within an image ---


@pytest.mark.parametrize("name", CUT_GRIDS)
def test_cubes_come_in_the_authors_order(golden: Callable[[str], Golden], name: str) -> None:
    magicnet = golden("magicnet")
    volume, grid = torch.from_numpy(magicnet[f"{name}.volume"]), CUT_GRIDS[name]
    cubes = split_cubes(volume, grid)
    np.testing.assert_array_equal(cubes.numpy(), magicnet[f"{name}.patches"].reshape(-1, 1, 4, 4, 4))
    # the authors' own reassembly misplaces cubes
    assert not np.array_equal(join_cubes(cubes, grid).numpy(), magicnet[f"{name}.unmixed_official"])
    assert torch.equal(join_cubes(cubes, grid), volume)


def test_join_equals_the_authors_with_their_numbering(golden: Callable[[str], Golden]) -> None:
    magicnet = golden("magicnet")
    # cube number n of our order stands at index loc[n] (first axis fastest) of what the authors put together
    reordered = torch.from_numpy(magicnet["unmix.patches"][:, magicnet["grid.loc"]])
    joined = join_cubes(reordered.flatten(0, 1), CUT_GRIDS["grid"])
    np.testing.assert_array_equal(joined.numpy(), magicnet["unmix.out"])


@pytest.mark.parametrize("grid", UNEVEN_GRIDS, ids=str)
def test_join_undoes_split(grid: CubeGrid) -> None:
    x = numbered_voxels(2, 3, grid)
    cubes = split_cubes(x, grid)
    assert cubes.shape == (2 * grid.num_cubes, 3, *grid.cube_size)
    assert torch.equal(join_cubes(cubes, grid), x)
    assert torch.equal(split_cubes(join_cubes(cubes, grid), grid), cubes)
    # a decoder gives another number of channels
    assert torch.equal(join_cubes(cubes[:, :1], grid), x[:, :1])


@pytest.mark.parametrize("grid", UNEVEN_GRIDS, ids=str)
def test_each_cube_is_the_slice_it_should_be(grid: CubeGrid) -> None:
    x = numbered_voxels(2, 3, grid)
    cubes = iter(split_cubes(x, grid))
    for item in x:
        for position in np.ndindex(*grid.cubes_per_axis):
            corner = [slice(p * edge, (p + 1) * edge) for p, edge in zip(position, grid.cube_size, strict=True)]
            assert torch.equal(next(cubes), item[(slice(None), *corner)])


# --- gradients and mistakes ---


@pytest.mark.parametrize("grid", [CubeGrid((2, 1, 3), (1, 2, 1)), CubeGrid((2, 2), (2, 1))], ids=str)
def test_gradients_flow(grid: CubeGrid) -> None:
    x = torch.randn(3, 2, *grid.patch_size, dtype=torch.float64, requires_grad=True)
    permutation = mixing_permutation(3, grid)
    cubes = split_cubes(x.detach(), grid).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: partition(x, permutation, grid), x)
    assert torch.autograd.gradcheck(lambda x: recover(x, permutation, grid), x)
    assert torch.autograd.gradcheck(lambda x: split_cubes(x, grid), x)
    assert torch.autograd.gradcheck(lambda cubes: join_cubes(cubes, grid), cubes)


def test_what_does_not_fit_the_grid_is_refused() -> None:
    grid = CubeGrid((3, 1, 2), (2, 5, 3))
    x = numbered_voxels(2, 1, grid)
    permutation = draw_permutation(2, grid, CPU)
    with pytest.raises(ValueError, match=r"patches of \(6, 5, 6\) voxels, got \(6, 6, 5\)"):
        partition(x.transpose(-1, -2), permutation, grid)
    with pytest.raises(ValueError, match=r"permutation of shape \(2, 3, 1, 2\), got \(2, 2, 1, 3\)"):
        partition(x, permutation.transpose(1, 3), grid)
    with pytest.raises(ValueError, match=r"permutation of shape \(1, 3, 1, 2\)"):
        recover(x[:1], permutation, grid)
    with pytest.raises(ValueError, match="6 per patch, got 11"):
        join_cubes(split_cubes(x, grid)[1:], grid)
    with pytest.raises(ValueError, match=r"cubes of \(2, 5, 3\) voxels"):
        join_cubes(split_cubes(x, grid).transpose(-1, -2), grid)
    with pytest.raises(ValueError, match="numbers of axes differ"):
        CubeGrid((3, 3), (2, 2, 2))
