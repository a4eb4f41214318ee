"""Patches as grids of cubes (of squares in 2D): the geometry of MagicNet.

The method is MagicNet's (D. Chen et al., CVPR 2023; DeepMed-Lab-ECNU/MagicNet@316d7ee9). *Across images*, the cubes at
one position of the grid are exchanged between the items of a batch (:func:`partition`) and the network's features are
put back (:func:`recover`). *Within an image*, every cube becomes an item of its own (:func:`split_cubes`) and the
patch is put together again (:func:`join_cubes`).

Axes: B items, C channels, then two or three spatial axes in nnU-Net's order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nnunet_sfr.errors import UserError


@dataclass(frozen=True)
class CubeGrid:
    """How a patch is cut. "Cubes" may have another edge on every axis, and have two axes in 2D.

    Args:
        cubes_per_axis: number of cubes along each spatial axis.
        cube_size: voxels of one cube along each spatial axis.

    Raises:
        ValueError: the two do not have the same number of axes.
    """

    cubes_per_axis: tuple[int, ...]
    cube_size: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.cubes_per_axis) != len(self.cube_size):
            raise ValueError(f"{self.cubes_per_axis} cubes of {self.cube_size} voxels: the numbers of axes differ")

    @property
    def num_cubes(self) -> int:
        return math.prod(self.cubes_per_axis)

    @property
    def patch_size(self) -> tuple[int, ...]:
        return tuple(n * edge for n, edge in zip(self.cubes_per_axis, self.cube_size, strict=True))


def plan_cube_grid(patch_size: Sequence[int], total_stride: Sequence[int], *, wanted: int = 3) -> CubeGrid:
    """The grid for a network: near ``wanted`` cubes per axis, each one whole bottleneck voxels wide.

    A patch is m bottleneck voxels long on an axis, and n cubes must share them evenly, so n divides m. Per axis, n is
    the divisor closest to ``wanted``, the smaller one of two. Instance norm is undefined on one voxel: where a cube
    would have a single bottleneck voxel, the axis with the most cubes gets the next smaller divisor until it has more.
    Where that leaves no cut at all, one axis, the longest possible, is cut into as few parts as its length allows.

    The authors cut patches of 96^3 voxels into 3x3x3 cubes; this gives the same for a total stride of 16.

    Args:
        patch_size: voxels per spatial axis.
        total_stride: of the network, from patch to bottleneck, per spatial axis.
        wanted: cubes per axis.

    Raises:
        UserError: no axis can be cut.
        ValueError: the patch is not a multiple of the stride on every axis.
    """
    bottleneck = _bottleneck_size(patch_size, total_stride)
    cubes = [min(_divisors(m), key=lambda n: (abs(n - wanted), n)) for m in bottleneck]
    while math.prod(cubes) == math.prod(bottleneck) and max(cubes) > 1:
        axis = cubes.index(max(cubes))
        cubes[axis] = max(n for n in _divisors(bottleneck[axis]) if n < cubes[axis])
    if max(cubes) == 1:
        axis, parts = _only_cut(patch_size, total_stride, bottleneck)
        cubes[axis] = parts
    cube_size = tuple(int(voxels) // n for voxels, n in zip(patch_size, cubes, strict=True))
    return CubeGrid(tuple(cubes), cube_size)


def draw_permutation(batch_size: int, grid: CubeGrid, device: torch.device) -> torch.Tensor:
    """At each position of the grid, independently, a random order of the items of the batch.

    Drawn from torch's CPU generator whatever the device, so that a seed gives the same run everywhere.

    Args:
        batch_size: B.
        grid: of the cubes.
        device: that the result is moved to.

    Returns:
        (B, *cubes_per_axis) int64, for :func:`partition` and :func:`recover`.
    """
    return torch.rand(batch_size, *grid.cubes_per_axis).argsort(dim=0).to(device)


def partition(x: torch.Tensor, permutation: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    """Mix the items of a batch: a cube keeps its position and moves to another item.

    Args:
        x: (B, C, *spatial), gradients flow.
        permutation: (B, *cubes_per_axis) int64 on the device of ``x``; the cube at position p of the mixed item b is
            the cube at position p of item ``permutation[b, p]``.
        grid: of ``x``.

    Returns:
        (B, C, *spatial).

    Raises:
        ValueError: the shape of ``x`` or of the permutation does not fit the grid.
    """
    expected = (x.shape[0], *grid.cubes_per_axis)
    if permutation.shape != expected:
        raise ValueError(f"expected a permutation of shape {expected}, got {tuple(permutation.shape)}")
    positions = torch.arange(grid.num_cubes, device=permutation.device)
    # cube p of item i is number i * num_cubes + p in the order of split_cubes
    sources = permutation.flatten(1) * grid.num_cubes + positions
    return join_cubes(split_cubes(x, grid).index_select(0, sources.flatten()), grid)


def recover(x: torch.Tensor, permutation: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    """The inverse of :func:`partition`, for the network's features of the mixed batch.

    Args:
        x: (B, C, *spatial), any number of channels; gradients flow.
        permutation: the one that :func:`partition` was given.
        grid: of ``x``.

    Returns:
        (B, C, *spatial).

    Raises:
        ValueError: the shape of ``x`` or of the permutation does not fit the grid.
    """
    return partition(x, permutation.argsort(dim=0), grid)


def split_cubes(x: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    """Make every cube an item of its own.

    Args:
        x: (B, C, *spatial), gradients flow.
        grid: of ``x``.

    Returns:
        (B * num_cubes, C, *cube_size): all cubes of the first item, then those of the second; within an item the
        position on the last spatial axis changes fastest.

    Raises:
        ValueError: the shape of ``x`` is not that of the grid.
    """
    if x.shape[2:] != grid.patch_size:
        raise ValueError(f"expected patches of {grid.patch_size} voxels, got {tuple(x.shape[2:])}")
    axes = len(grid.cube_size)
    # (B, C, n0, s0, n1, s1, ...) -> (B, n0, n1, ..., C, s0, s1, ...)
    interleaved = [size for pair in zip(grid.cubes_per_axis, grid.cube_size, strict=True) for size in pair]
    blocks = x.reshape(*x.shape[:2], *interleaved)
    positions, within = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    return blocks.permute(0, *positions, 1, *within).reshape(-1, x.shape[1], *grid.cube_size)


def join_cubes(cubes: torch.Tensor, grid: CubeGrid) -> torch.Tensor:
    """The inverse of :func:`split_cubes`: every cube returns to where it came from.

    The authors cut with the last axis fastest and put together with the first axis fastest, which exchanges the first
    and the last axis of a cubic grid (MagicNet cube_losses.py@316d7ee9, get_patch_list and unmix_tensor).

    Args:
        cubes: (B * num_cubes, C, *cube_size) in the order of :func:`split_cubes`, any number of channels; gradients
            flow.
        grid: of the result.

    Returns:
        (B, C, *spatial).

    Raises:
        ValueError: the cubes do not have the grid's size, or do not fill a whole number of patches.
    """
    if cubes.shape[2:] != grid.cube_size or cubes.shape[0] % grid.num_cubes:
        raise ValueError(
            f"expected cubes of {grid.cube_size} voxels, {grid.num_cubes} per patch, "
            f"got {cubes.shape[0]} of {tuple(cubes.shape[2:])}"
        )
    axes = len(grid.cube_size)
    channels = cubes.shape[1]
    # (B, n0, n1, ..., C, s0, s1, ...) -> (B, C, n0, s0, n1, s1, ...)
    blocks = cubes.reshape(-1, *grid.cubes_per_axis, channels, *grid.cube_size)
    interleaved = [
        axis for pair in zip(range(1, 1 + axes), range(2 + axes, 2 + 2 * axes), strict=True) for axis in pair
    ]
    return blocks.permute(0, 1 + axes, *interleaved).reshape(-1, channels, *grid.patch_size)


def _bottleneck_size(patch_size: Sequence[int], total_stride: Sequence[int]) -> list[int]:
    """m per axis: the voxels of a whole patch at the bottleneck."""
    pairs = list(zip(patch_size, total_stride, strict=False))
    if len(patch_size) != len(total_stride) or any(voxels % stride for voxels, stride in pairs):
        raise ValueError(
            f"the patch size {_by(patch_size)} must be a multiple of the total stride {_by(total_stride)} on every axis"
        )
    return [int(voxels // stride) for voxels, stride in pairs]


def _only_cut(patch_size: Sequence[int], total_stride: Sequence[int], bottleneck: Sequence[int]) -> tuple[int, int]:
    """The longest axis that can be cut on its own, and into how many parts (its smallest divisor from 2 on)."""
    voxels = math.prod(bottleneck)
    # sorted() is stable: of equally long axes the first
    for axis in sorted(range(len(bottleneck)), key=lambda axis: -patch_size[axis]):
        parts = next((n for n in _divisors(bottleneck[axis]) if n >= 2 and voxels // n > 1), None)
        if parts is not None:
            return axis, parts
    raise UserError(
        f"a patch of {_by(patch_size)} voxels is {_by(bottleneck)} at the bottleneck of a network with stride "
        f"{_by(total_stride)}: MagicNet cannot cut it into cubes that keep more than one voxel there, which instance "
        "norm needs; plan a larger patch or choose another method"
    )


def _divisors(number: int) -> list[int]:
    """In rising order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
