"""Whether a label map or channel lies on the grid of its image or truth, as far as nnU-Net's readers tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import times

_GRID_TOLERANCE = 0.05
"""Of the smallest spacing: how far a corner may lie from where it should. A shift is a voxel or more."""

_QUATERNION_ROUNDING = 1.3e-3
"""Radians. Of half a turn, single precision leaves the last part of a quaternion open: below 3 · 2⁻²³ nibabel takes its
square for 0, where ITK takes the root. So a label map that nibabel wrote on the grid of its image can be turned by
2 √(3 · 2⁻²³) = 1.2e-3."""


def require_same_grid(
    file: Path,
    label: tuple[Sequence[int], Mapping[str, Any]],
    image: tuple[Sequence[int], Mapping[str, Any]],
    case: str,
    *,
    like: str = "image",
    remedy: str | None = None,
) -> None:
    """Compare size, spacing and, where the reader tells, the places of the corners (origin and direction).

    Args:
        file: with the label map, or the channel of an image, for the message.
        label: lengths in voxels and the reader's properties of it.
        image: the same of what it shall be like.
        case: identifier of both.
        like: what that is, for the message.
        remedy: what to do, for the message; None for what a label map needs.

    Raises:
        UserError: they differ.
    """
    (label_shape, found), (image_shape, wanted) = label, image
    other, remedy = f"the {like} of case {case}", remedy or f"a label map has to lie on the grid of the {like}"
    if tuple(label_shape) != tuple(image_shape):
        raise UserError(f"{file}: {times(label_shape)} voxels, but {other} has {times(image_shape)}; {remedy}")
    is_, should = _geometry(found), _geometry(wanted)
    name = _what_differs(is_, should, image_shape)
    if name is not None:
        raise UserError(f"{file}: {name} {_numbers(is_[name])}, but {other} has {_numbers(should[name])}; {remedy}")


def _geometry(properties: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """What nnU-Net's readers tell of where an image lies: spacing always, the rest depends on the reader.

    The columns of ``axes`` are the steps from voxel to voxel in mm, those of ``direction`` what the reader calls so.
    """
    geometry = {"spacing": np.asarray(properties["spacing"], float)}
    if "sitk_stuff" in properties:
        itk = properties["sitk_stuff"]
        origin = np.asarray(itk["origin"], float)
        # channels in one file are a fourth axis, which says nothing of the place
        direction = np.asarray(itk["direction"], float).reshape(len(origin), len(origin))[:3, :3]
        axes = direction * np.asarray(itk["spacing"], float)[:3]
        geometry |= {"origin": origin[:3], "direction": direction, "axes": axes}
    if "nibabel_stuff" in properties:
        affines = properties["nibabel_stuff"]
        affine = np.asarray(affines.get("reoriented_affine", affines["original_affine"]), float)
        geometry |= {"origin": affine[:3, 3], "direction": affine[:3, :3], "axes": affine[:3, :3]}
    return geometry


def _what_differs(
    found: Mapping[str, NDArray[np.float64]], wanted: Mapping[str, NDArray[np.float64]], shape: Sequence[int]
) -> str | None:
    """What lets the corners of two grids of one size lie in different places; None if nothing does.

    Args:
        found: of :func:`_geometry`.
        wanted: of :func:`_geometry`, by the same reader.
        shape: lengths in voxels, in the reader's order, which is not that of the file.
    """
    if not np.allclose(found["spacing"], wanted["spacing"]):
        return "spacing"
    if "axes" not in wanted:
        return None
    lengths = tuple(shape)[::-1][: len(wanted["axes"])]
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in lengths])).reshape(len(lengths), -1)
    turned = np.linalg.norm((found["axes"] - wanted["axes"]) @ corners, axis=0)
    allowed = _GRID_TOLERANCE * wanted["spacing"].min()
    if np.linalg.norm(found["origin"] - wanted["origin"]) > allowed:
        return "origin"
    distances = np.linalg.norm(wanted["axes"] @ corners, axis=0)
    return "direction" if np.any(turned > allowed + _QUATERNION_ROUNDING * distances) else None


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in np.ravel(np.asarray(values)))
