"""Whether a label map or channel lies on the grid of its image or truth, as far as nnU-Net's readers tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import times


def require_same_grid(
    file: Path,
    label: tuple[Sequence[int], Mapping[str, Any]],
    image: tuple[Sequence[int], Mapping[str, Any]],
    case: str,
    *,
    like: str = "image",
    remedy: str | None = None,
) -> None:
    """Compare size, spacing and, where the reader tells them, origin and direction.

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
    for name, tolerance in _tolerances(wanted).items():
        is_, should = _geometry(found)[name], _geometry(wanted)[name]
        if not np.allclose(is_, should, atol=tolerance):
            raise UserError(f"{file}: {name} {_numbers(is_)}, but {other} has {_numbers(should)}; {remedy}")


def _geometry(properties: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What nnU-Net's readers tell of where an image lies: spacing always, the rest depends on the reader."""
    geometry = {"spacing": np.asarray(properties["spacing"], float)}
    if "sitk_stuff" in properties:
        itk = properties["sitk_stuff"]
        origin = np.asarray(itk["origin"])
        direction = np.asarray(itk["direction"]).reshape(len(origin), len(origin))
        # channels in one file are a fourth axis, which says nothing of the place
        geometry |= {"origin": origin[:3], "direction": direction[:3, :3]}
    if "nibabel_stuff" in properties:
        affines = properties["nibabel_stuff"]
        affine = np.asarray(affines.get("reoriented_affine", affines["original_affine"]))
        geometry |= {"origin": affine[:3, 3], "direction": affine[:3, :3]}
    return geometry


def _tolerances(properties: Mapping[str, Any]) -> dict[str, float]:
    """How far a number may be off besides nnU-Net's relative 1e-5 (numpy's), which allows nothing around 0.

    Headers in single precision put 1e-7 in the place of a 0.
    """
    smallest = float(np.min(properties["spacing"]))
    return {name: {"origin": 1e-3 * smallest, "direction": 1e-5}.get(name, 1e-8) for name in _geometry(properties)}


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in np.ravel(np.asarray(values)))
