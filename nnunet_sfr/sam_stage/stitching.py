"""Stitching: the slices of a patch laid side by side in one square image, and back (paper, section III-B1).

A patch may be resampled first (paper, Fig. 9). Voxel i of n lies at (i + 1/2) / n of the patch's length at every scale,
for intensities, logits and labels alike.

The layout is the paper's: slices in order, row by row from the first tile on, in the squarest grid that holds them. The
authors' code instead transposes every slice, centres the run of slices in the grid, and for many sizes loses border
voxels or whole slices:
https://github.com/ShumengLI/SFR/blob/dc32304b6ba7a6f9ecbcea5a30e9eebe98510ad6/code/utils/util.py
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.nn import functional as F

from nnunet_sfr.canvas import UNSCALED, Scale, Size, check_canvas, scaled_size, shown_size, tiles
from nnunet_sfr.settings import StitchingSettings


@dataclass(frozen=True)
class StitchGeometry:
    """Where each voxel of a patch lies on the canvas.

    A patch is resampled to its size times ``scale`` and cut into slices across ``slice_axis``. The grid has ``rows`` x
    ``columns`` tiles of ``tile_height`` x ``tile_width`` pixels (as large as the canvas allows) and starts at the
    canvas's origin; the few pixels that the division leaves over lie at the bottom and the right. Each slice is centred
    in its tile (an odd pixel of padding goes below or to the right) and is not transposed.

    Args:
        patch_size: (D, H, W) in voxels.
        canvas_size: side S of the square canvas in pixels.
        scale: factors for (D, H, W) by which a patch is resampled before it is stitched.
        slice_axis: 0, 1 or 2; a slice has the other two axes, in their order.

    Raises:
        ValueError: a size below 1, a factor that is not finite and positive, an axis that there is not, or more slices
            than fit on the canvas.
    """

    patch_size: Size
    canvas_size: int
    scale: Scale = UNSCALED
    slice_axis: int = 0

    def __post_init__(self) -> None:
        check_canvas(self.patch_size, self.canvas_size, self.scale, self.slice_axis)

    @cached_property
    def shown_size(self) -> Size:
        """(slices, height, width) of a patch on the canvas in pixels."""
        return shown_size(self.patch_size, self.scale, self.slice_axis)

    @cached_property
    def _scaled_size(self) -> Size:
        """(D, H, W) of a resampled patch."""
        return scaled_size(self.patch_size, self.scale)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(rows, columns): of all grids that hold the slices the squarest, then the smallest.

        For square slices both are the root of D, rounded up (equation in section III-B1).
        """
        slices = self.shown_size[0]
        most_rows, most_columns = tiles(self.shown_size, self.canvas_size)
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

    def stitch(self, volume: Tensor, fill: float = 0) -> Tensor:
        """Resample a patch (trilinearly) and lay its slices on a canvas; differentiable.

        Args:
            volume: [B, C, D, H, W], of any type if it is not resampled, else of floating-point numbers.
            fill: value of the pixels that show nothing (0, the mean of normalised images).

        Returns:
            [B, C, S, S].

        Raises:
            ValueError: the volume's shape is not that of the patch.
        """
        self._check_patch(volume)
        return self._lay(_resample(volume, self._scaled_size), fill)

    def stitch_labels(self, labels: Tensor, fill: int) -> Tensor:
        """:meth:`stitch` for label maps: a pixel has the label of the voxel that it lies in.

        Args:
            labels: [B, 1, D, H, W], integers.
            fill: value of the pixels that show nothing (the ignore value of the loss).

        Returns:
            [B, S, S], of the same type.

        Raises:
            ValueError: the labels' shape is not that of the patch, or has several channels.
        """
        self._check_patch(labels)
        if labels.shape[1] != 1:
            raise ValueError(f"expected labels [B, 1, {self._describe_patch()}], got {list(labels.shape)}")
        if self._scaled_size != self.patch_size:
            # interpolate takes no int64; float32 holds every label
            labels = F.interpolate(labels.float(), self._scaled_size, mode="nearest-exact").to(labels.dtype)
        return self._lay(labels, fill)[:, 0]

    def unstitch(self, canvas: Tensor) -> Tensor:
        """Read every slice from its tile and resample the patch to its own size (trilinearly); differentiable.

        Exact inverse of :meth:`stitch` if nothing is resampled.

        Args:
            canvas: [B, K, S, S] with any number of channels (logits; labels only if nothing is resampled).

        Returns:
            [B, K, D, H, W].

        Raises:
            ValueError: the canvas has another size.
        """
        if tuple(canvas.shape[2:]) != (self.canvas_size, self.canvas_size):
            raise ValueError(
                f"expected a canvas [B, K, {self.canvas_size}, {self.canvas_size}], got {list(canvas.shape)}"
            )
        return _resample(self._read(canvas), self.patch_size)

    def _check_patch(self, volume: Tensor) -> None:
        if tuple(volume.shape[2:]) != self.patch_size:
            raise ValueError(f"expected a volume [B, C, {self._describe_patch()}], got {list(volume.shape)}")

    def _lay(self, volume: Tensor, fill: float) -> Tensor:
        """A resampled patch [B, C, D', H', W'] on the canvas, [B, C, S, S]."""
        volume = volume.movedim(2 + self.slice_axis, 2)
        batch, channels, slices, height, width = volume.shape
        top, left = self._slice_offset
        blank_tiles = self.rows * self.columns - slices
        filled = F.pad(
            volume,
            (left, self.tile_width - width - left, top, self.tile_height - height - top, 0, blank_tiles),
            value=fill,
        )
        filled = filled.reshape(batch, channels, self.rows, self.columns, self.tile_height, self.tile_width)
        grid_height, grid_width = self._grid_pixels
        grid = filled.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, grid_height, grid_width)
        return F.pad(grid, (0, self.canvas_size - grid_width, 0, self.canvas_size - grid_height), value=fill)

    def _read(self, canvas: Tensor) -> Tensor:
        """Exact inverse of :meth:`_lay`."""
        batch, channels = canvas.shape[:2]
        slices, height, width = self.shown_size
        top, left = self._slice_offset
        grid_height, grid_width = self._grid_pixels
        shown = canvas[:, :, :grid_height, :grid_width].reshape(
            batch, channels, self.rows, self.tile_height, self.columns, self.tile_width
        )
        shown = shown[:, :, :, top : top + height, :, left : left + width].permute(0, 1, 2, 4, 3, 5)
        shown = shown.reshape(batch, channels, self.rows * self.columns, height, width)[:, :, :slices]
        return shown.movedim(2, 2 + self.slice_axis)

    @property
    def _slice_offset(self) -> tuple[int, int]:
        """Row and column of a slice's first pixel within its tile."""
        _, height, width = self.shown_size
        return (self.tile_height - height) // 2, (self.tile_width - width) // 2

    @property
    def _grid_pixels(self) -> tuple[int, int]:
        return self.rows * self.tile_height, self.columns * self.tile_width

    def _describe_patch(self) -> str:
        return ", ".join(str(size) for size in self.patch_size)


def geometry_of(stitching: StitchingSettings) -> StitchGeometry:
    """How patches are stitched across the first of the axes in ``slice_axes``."""
    return StitchGeometry(stitching.patch_size, stitching.canvas_size, stitching.scale, stitching.slice_axes[0])


def _resample(volume: Tensor, size: Size) -> Tensor:
    """Trilinear, voxel centres at (i + 1/2) / n of the length; nothing is done where the size is right already."""
    if tuple(volume.shape[2:]) == size:
        return volume
    return F.interpolate(volume, size, mode="trilinear", align_corners=False)
