"""Stitching: the slices of a patch laid side by side in one square image, and back (paper, section III-B1).

The layout is the paper's: slices in order, row by row from the first tile on, in the squarest grid that holds them at
full resolution. The authors' code instead transposes every slice, centres the run of slices in the grid, and for many
sizes loses border voxels or whole slices:
https://github.com/ShumengLI/SFR/blob/dc32304b6ba7a6f9ecbcea5a30e9eebe98510ad6/code/utils/util.py
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class StitchGeometry:
    """Where each voxel of a patch lies on the canvas.

    The grid has ``rows`` x ``columns`` tiles of ``tile_height`` x ``tile_width`` pixels (as large as the canvas allows)
    and starts at the canvas's origin; the few pixels that the division leaves over lie at the bottom and the right.
    Each slice is centred in its tile (an odd pixel of padding goes below or to the right) and is not transposed.

    Args:
        patch_size: (D, H, W), slices first, in voxels.
        canvas_size: side S of the square canvas in pixels.

    Raises:
        ValueError: a size below 1, or more slices than fit on the canvas at full resolution.
    """

    patch_size: tuple[int, int, int]
    canvas_size: int

    def __post_init__(self) -> None:
        if len(self.patch_size) != 3 or min(self.patch_size) < 1:
            raise ValueError(f"patch_size needs three positive numbers, got {self.patch_size}")
        slices, height, width = self.patch_size
        rows, columns = self.canvas_size // height, self.canvas_size // width
        if slices > rows * columns:
            raise ValueError(
                f"a canvas of {self.canvas_size} pixels holds {rows} x {columns} slices of {height} x {width}, "
                f"but the patch has {slices}; take a smaller patch or a larger canvas"
            )

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(rows, columns): of all grids that hold the slices at full resolution the squarest, then the smallest.

        For square slices both are the root of D, rounded up (equation in section III-B1).
        """
        slices, height, width = self.patch_size
        most_rows, most_columns = self.canvas_size // height, self.canvas_size // width
        candidates = []
        for rows in range(1, most_rows + 1):
            fewest_columns = -(-slices // rows)
            if fewest_columns <= most_columns:
                candidates.append((rows, min(max(rows, fewest_columns), most_columns)))
        return min(candidates, key=lambda grid: (abs(grid[0] - grid[1]), grid[0] * grid[1]))

    @property
    def rows(self) -> int:
        return self.grid[0]

    @property
    def columns(self) -> int:
        return self.grid[1]

    @property
    def tile_height(self) -> int:
        return self.canvas_size // self.rows

    @property
    def tile_width(self) -> int:
        return self.canvas_size // self.columns

    @property
    def filled_share(self) -> float:
        """Share of the canvas's pixels that show a voxel, between 0 and 1; the rest is fill."""
        slices, height, width = self.patch_size
        return slices * height * width / self.canvas_size**2

    def stitch(self, volume: Tensor, fill: float = 0) -> Tensor:
        """Lay the slices of a patch on a canvas; differentiable, for any dtype.

        Args:
            volume: [B, C, D, H, W].
            fill: value of the pixels that show no voxel (0, the mean of normalised images; the ignore value of labels).

        Returns:
            [B, C, S, S].

        Raises:
            ValueError: the volume's shape is not that of the patch.
        """
        if tuple(volume.shape[2:]) != self.patch_size:
            raise ValueError(f"expected a volume [B, C, {self._describe_patch()}], got {list(volume.shape)}")
        batch, channels, slices, height, width = volume.shape
        top, left = self._slice_offset
        blank_tiles = self.rows * self.columns - slices
        tiles = F.pad(
            volume,
            (left, self.tile_width - width - left, top, self.tile_height - height - top, 0, blank_tiles),
            value=fill,
        )
        tiles = tiles.reshape(batch, channels, self.rows, self.columns, self.tile_height, self.tile_width)
        grid_height, grid_width = self._grid_pixels
        grid = tiles.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, grid_height, grid_width)
        return F.pad(grid, (0, self.canvas_size - grid_width, 0, self.canvas_size - grid_height), value=fill)

    def unstitch(self, canvas: Tensor) -> Tensor:
        """Exact inverse of :meth:`stitch`: read every voxel back from its pixel; differentiable.

        Args:
            canvas: [B, K, S, S] with any number of channels (logits, probabilities, labels).

        Returns:
            [B, K, D, H, W].

        Raises:
            ValueError: the canvas has another size.
        """
        if tuple(canvas.shape[2:]) != (self.canvas_size, self.canvas_size):
            raise ValueError(
                f"expected a canvas [B, K, {self.canvas_size}, {self.canvas_size}], got {list(canvas.shape)}"
            )
        batch, channels = canvas.shape[:2]
        slices, height, width = self.patch_size
        top, left = self._slice_offset
        grid_height, grid_width = self._grid_pixels
        tiles = canvas[:, :, :grid_height, :grid_width].reshape(
            batch, channels, self.rows, self.tile_height, self.columns, self.tile_width
        )
        tiles = tiles[:, :, :, top : top + height, :, left : left + width].permute(0, 1, 2, 4, 3, 5)
        return tiles.reshape(batch, channels, self.rows * self.columns, height, width)[:, :, :slices]

    @property
    def _slice_offset(self) -> tuple[int, int]:
        """Row and column of a slice's first pixel within its tile."""
        _, height, width = self.patch_size
        return (self.tile_height - height) // 2, (self.tile_width - width) // 2

    @property
    def _grid_pixels(self) -> tuple[int, int]:
        return self.rows * self.tile_height, self.columns * self.tile_width

    def _describe_patch(self) -> str:
        return ", ".join(str(size) for size in self.patch_size)
