"""The plan: nnU-Net's part, and how much of a volume one mosaic shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_sfr.canvas import UNSCALED, filled_share, scaled_size, shown_size, tiles
from nnunet_sfr.data.preprocessed_grid import preprocessed_shape, with_slice_distance
from nnunet_sfr.data.raw_cases import list_cases
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, note, ok, problem
from nnunet_sfr.errors import UserError
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.planning.fingerprint import stamps
from nnunet_sfr.planning.planners import nnunet_plan_summary
from nnunet_sfr.settings import StitchingSettings
from nnunet_sfr.wording import times

REMEDY = "run sfr_plan_and_preprocess again"


@dataclass(frozen=True)
class MosaicCoverage:
    """What one stitched image holds.

    Args:
        rows: of slices that the canvas has room for, at full resolution.
        columns: of such slices.
        used: slices of the patch.
        filled: share of the canvas that shows a voxel.
        extent: (D, H, W) of the patch in mm.
        shares: per axis, the median over all volumes of the share that the patch covers.
        volume_share: the same of the voxels.
    """

    rows: int
    columns: int
    used: int
    filled: float
    extent: tuple[float, float, float]
    shares: tuple[float, float, float]
    volume_share: float


def check_plan(dataset: SFRDataset, stitching: StitchingSettings) -> list[Finding]:
    """nnU-Net's plan, and the mosaic of the SFR plan.

    Args:
        dataset: planned.
        stitching: of its SFR plan.
    """
    fingerprint = read_fingerprint(dataset.paths.fingerprint_file)
    mosaic = measure_mosaic(stitching, volumes(dataset, fingerprint), slice_spacings(dataset, fingerprint))
    shares = ", ".join(f"{100 * share:.0f} %" for share in mosaic.shares)
    return [
        ok("nnU-Net", nnunet_plan_summary(dataset.plans_manager, dataset.paths.configuration)),
        ok(
            "mosaic",
            f"{times(stitching.patch_size)} voxels{_at_scale(stitching)} on a canvas of {stitching.canvas_size}: room "
            f"for {mosaic.rows} x {mosaic.columns} = {mosaic.rows * mosaic.columns} slices, {mosaic.used} used, "
            f"{100 * mosaic.filled:.0f} % of the pixels filled",
        ),
        ok(
            "covers",
            f"{times(f'{length:.0f}' for length in mosaic.extent)} mm: {shares} of depth, height and width and "
            f"{100 * mosaic.volume_share:.0f} % of the voxels of a volume (medians)",
        ),
    ]


def check_freshness(dataset: SFRDataset) -> list[Finding]:
    """Whether the plan was made from the raw files as they are now."""
    try:
        raw = list_cases(dataset.paths.raw)
    except UserError:  # which is said where the raw data are looked at
        return []
    recorded = stamps(read_fingerprint(dataset.paths.fingerprint_file))
    if not recorded:
        return [note("plan", "its fingerprint is of the labelled images alone", REMEDY)]
    if not raw.is_that_of(recorded):
        return [problem("plan", "made from other raw files than those that are there now", REMEDY)]
    return []


def volumes(dataset: SFRDataset, fingerprint: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(D, H, W) of every case, labelled and unlabelled, on the preprocessed grid.

    Args:
        dataset: planned.
        fingerprint: of nnU-Net, of all images.
    """
    axes = dataset.plans_manager.transpose_forward
    return [
        preprocessed_shape(
            [shape[axis] for axis in axes], [spacing[axis] for axis in axes], dataset.configuration_manager.spacing
        )
        for shape, spacing in zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True)
    ]


def slice_spacings(dataset: SFRDataset, fingerprint: dict[str, Any]) -> tuple[float, float, float]:
    """Spacing (D, H, W) of the preprocessed grid in mm; a 2D configuration keeps each case's own distance of slices,
    of which this is the median.

    Args:
        dataset: planned.
        fingerprint: of nnU-Net, of all images.
    """
    first_axis = dataset.plans_manager.transpose_forward[0]
    slice_distance = np.median([case[first_axis] for case in fingerprint["spacings"]])
    depth, height, width = map(float, with_slice_distance(dataset.configuration_manager.spacing, float(slice_distance)))
    return depth, height, width


def _at_scale(stitching: StitchingSettings) -> str:
    if stitching.scale == UNSCALED:
        return ""
    size = scaled_size(stitching.patch_size, stitching.scale)
    return f" at a scale of {times(stitching.scale)}, {times(size)} pixels,"


def measure_mosaic(
    stitching: StitchingSettings, shapes: Sequence[Sequence[int]], spacing: Sequence[float]
) -> MosaicCoverage:
    """Capacity and coverage of a mosaic.

    Args:
        stitching: patch and canvas.
        shapes: (D, H, W) of every volume on the preprocessed grid.
        spacing: (D, H, W) of that grid in mm.
    """
    size = shown_size(stitching.patch_size, stitching.scale, stitching.slice_axes[0])
    rows, columns = tiles(size, stitching.canvas_size)
    covered = np.minimum(1.0, np.array(stitching.patch_size) / np.array(shapes))
    extent = [length * millimetres for length, millimetres in zip(stitching.patch_size, spacing, strict=True)]
    shares = np.median(covered, axis=0).tolist()
    return MosaicCoverage(
        rows=rows,
        columns=columns,
        used=size[0],
        filled=filled_share(size, stitching.canvas_size),
        extent=(extent[0], extent[1], extent[2]),
        shares=(shares[0], shares[1], shares[2]),
        volume_share=float(np.median(covered.prod(axis=1))),
    )
