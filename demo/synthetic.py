"""Synthetic MRI volumes of a left atrium, for a demonstration that downloads nothing.

The target is a deformed ellipsoid with two to four veins. Around it lie other blood pools of nearly its brightness (a
right atrium that shares a thin wall with it, a ventricle, an aorta), so that a threshold cannot find it: what tells it
apart is where it lies and that it has veins. Pose, size, shape, contrast, gain, bias field, blur, noise, image size and
spacing differ from case to case.

Axes are (z, y, x) everywhere; y grows towards the back. Lengths are in millimetres.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
LABEL_NAME = "atrium"

FIELD_OF_VIEW = (74.0, 142.0, 142.0)
SMALLEST_SIZE, LARGEST_SIZE = (24, 56, 56), (32, 72, 72)
WALL = 2.5
"""Thickness of the muscle between the target and its look-alike: about one voxel, so smoothing makes them one."""


@dataclass(frozen=True)
class Volume:
    """One case.

    Args:
        image: (z, y, x) int16, arbitrary units, as a scanner gives them.
        label: (z, y, x) uint8, 1 inside the target.
        spacing: voxel size (z, y, x) in mm.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Anatomy:
    """Signed distances in mm (negative inside) of everything that is drawn, each (z, y, x)."""

    lungs: Array
    spine: Array
    muscle: Array
    aorta: Array
    ventricle: Array
    lookalike: Array
    target: Array


def make_volume(seed: int, index: int) -> Volume:
    """Draw one case; the same seed and index give the same arrays."""
    rng = np.random.default_rng([seed, index])
    in_plane = round(float(rng.uniform(2.0, 2.5)), 2)
    spacing = (float(rng.choice((2.5, 3.0))), in_plane, in_plane)
    extent = np.asarray(FIELD_OF_VIEW) * rng.uniform(0.95, 1.05, size=3)
    size = np.clip(np.round(extent / spacing).astype(int), SMALLEST_SIZE, LARGEST_SIZE)
    anatomy = _draw_anatomy(rng, tuple(size), spacing)
    image = _acquire(rng, _tissue_brightness(rng, anatomy, spacing), spacing)
    return Volume(image, (anatomy.target < 0).astype(np.uint8), spacing)


def write_volumes(folder: Path, *, seed: int = 0, labelled: int = 3, unlabelled: int = 8, test: int = 4) -> None:
    """Write ``images/``, ``labels/`` (the truth of every case) and ``splits.json``, as ``--data`` expects them."""
    names = [f"case{index:02d}" for index in range(labelled + unlabelled + test)]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        volume = make_volume(seed, index)
        _write(volume.image, volume.spacing, folder / "images" / f"{name}.nii.gz")
        _write(volume.label, volume.spacing, folder / "labels" / f"{name}.nii.gz")
    splits = {
        "order": names,
        f"labeled_{labelled}": names[:labelled],
        "development_test": names[labelled + unlabelled :],
    }
    (folder / "splits.json").write_text(json.dumps(splits, indent=1) + "\n")


def _write(array: NDArray[np.generic], spacing: Sequence[float], file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing)))
    sitk.WriteImage(image, str(file), True)


# --- shapes ---------------------------------------------------------------------------------------------------------


def _draw_anatomy(rng: np.random.Generator, size: Sequence[int], spacing: Sequence[float]) -> Anatomy:
    points = _grid(size, spacing)
    # One smooth displacement bends everything alike, as breathing and build do; it keeps neighbours neighbours.
    points = points + np.stack([_smooth_noise(rng, size, spacing, 18.0) * 3.0 for _ in range(3)], axis=-1)
    heart = _into_heart(rng, points)
    target = _target(rng, heart) + 1.2 * _smooth_noise(rng, size, spacing, 8.0)
    wall = WALL - target
    return Anatomy(
        lungs=np.minimum(
            _ellipsoid(points, _near(rng, (0, 0, -68), 4), (80, 58, 36)),
            _ellipsoid(points, _near(rng, (0, 4, 70), 4), (80, 58, 34)),
        ),
        spine=_ellipsoid(points, _near(rng, (0, 62, -4), 3), (400, 15, 17)),
        muscle=_ellipsoid(heart, (0, -12, 2), (44, 44, 47)),
        aorta=_tube(points, _near(rng, np.array([(-60, 44, 16), (0, 42, 20), (60, 40, 16)]), 2), (9.0, 9.0)),
        ventricle=np.maximum(_ellipsoid(heart, _near(rng, (-12, -24, 18), 2), _vary(rng, (24, 20, 15))), wall),
        lookalike=np.maximum(_ellipsoid(heart, _near(rng, (2, -6, -24), 2), _vary(rng, (20, 22, 15))), wall),
        target=target,
    )


def _into_heart(rng: np.random.Generator, points: Array) -> Array:
    """The points seen from the heart, which is shifted, turned and scaled differently in every case."""
    turn = Rotation.from_euler("zyx", rng.uniform(-18, 18, size=3), degrees=True).as_matrix()
    shifted = points - rng.uniform((-5, -5, -7), (5, 5, 7))
    moved: Array = shifted @ turn.T / rng.uniform(0.88, 1.1)
    return moved


def _target(rng: np.random.Generator, points: Array) -> Array:
    """A body with two to four veins that leave it sideways and backwards, towards the lungs."""
    centre = _near(rng, (4, 13, 4), 1)
    semi_axes = _vary(rng, (18, 14, 22))
    target = _ellipsoid(points, centre, semi_axes)
    directions = np.array([(0.45, 0.35, 1.0), (-0.45, 0.45, 1.0), (0.45, 0.4, -1.0), (-0.45, 0.5, -1.0)])
    chosen = rng.permutation(4)[: rng.integers(2, 5)]
    for direction in directions[np.sort(chosen)]:
        outwards = _near(rng, direction, 0.12)
        start = centre + outwards * semi_axes * 0.6
        bend = start + outwards * rng.uniform(9, 13)
        end = bend + _near(rng, outwards, 0.35) * rng.uniform(9, 15)
        wide = rng.uniform(5.0, 6.5)
        vein = _tube(points, np.stack([start, bend, end]), (wide, 0.75 * wide))
        target = _smooth_union(target, vein, 4.0)
    return target


def _ellipsoid(points: Array, centre: Sequence[float] | Array, semi_axes: Sequence[float] | Array) -> Array:
    """Signed distance to an ellipsoid, to first order: exact on its surface, which is where it matters."""
    offset = points - np.asarray(centre, dtype=float)
    axes = np.asarray(semi_axes, dtype=float)
    scaled = np.linalg.norm(offset / axes, axis=-1)
    gradient = np.linalg.norm(offset / axes**2, axis=-1)
    distance: Array = scaled * (scaled - 1) / np.maximum(gradient, 1e-9)
    return distance


def _tube(points: Array, control: Array, radii: tuple[float, float]) -> Array:
    """Signed distance to a tube along the Bezier curve of three control points, from one radius to another."""
    distance = np.full(points.shape[:-1], np.inf)
    for t in np.linspace(0, 1, 24):
        on_curve = (1 - t) ** 2 * control[0] + 2 * t * (1 - t) * control[1] + t**2 * control[2]
        radius = (1 - t) * radii[0] + t * radii[1]
        distance = np.minimum(distance, np.linalg.norm(points - on_curve, axis=-1) - radius)
    return distance


def _smooth_union(first: Array, second: Array, rounding: float) -> Array:
    """Union of two shapes with the crease between them filled over ``rounding`` mm."""
    overlap = np.maximum(rounding - np.abs(first - second), 0) / rounding
    union: Array = np.minimum(first, second) - overlap**2 * rounding / 4
    return union


def _grid(size: Sequence[int], spacing: Sequence[float]) -> Array:
    """Voxel centres in mm, (z, y, x, 3), with the origin in the middle of the volume."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _smooth_noise(rng: np.random.Generator, size: Sequence[int], spacing: Sequence[float], width: float) -> Array:
    """Gaussian random field of zero mean and unit variance that varies over ``width`` mm."""
    field = gaussian_filter(rng.standard_normal(size), [width / step for step in spacing], mode="wrap")
    smooth: Array = (field - field.mean()) / field.std()
    return smooth


def _near(rng: np.random.Generator, value: Sequence[float] | Array, spread: float) -> Array:
    """``value`` moved by at most ``spread`` along each axis."""
    position = np.asarray(value, dtype=float)
    return position + rng.uniform(-spread, spread, size=position.shape)


def _vary(rng: np.random.Generator, value: Sequence[float]) -> Array:
    return np.asarray(value, dtype=float) * rng.uniform(0.9, 1.12, size=len(value))


# --- image ----------------------------------------------------------------------------------------------------------


def _tissue_brightness(rng: np.random.Generator, anatomy: Anatomy, spacing: Sequence[float]) -> Array:
    """What a perfect scanner would show, with blood in the target at 1."""
    size = anatomy.target.shape

    def texture(width: float, strength: float) -> Array:
        return strength * _smooth_noise(rng, size, spacing, width)

    blood = rng.uniform(0.92, 1.08, size=3)
    image = rng.uniform(0.52, 0.66) + texture(6.0, 0.08) + texture(2.0, 0.03)
    vessels = np.maximum(texture(3.0, 0.22) - 0.22, 0)
    layers: list[tuple[Array, Array | float]] = [
        (anatomy.lungs, rng.uniform(0.10, 0.18) + vessels),
        (anatomy.spine, rng.uniform(0.5, 0.75) + texture(5.0, 0.1)),
        (anatomy.muscle, rng.uniform(0.36, 0.48) + texture(5.0, 0.05)),
        (anatomy.aorta, float(blood[0])),
        (anatomy.ventricle, blood[1] + texture(5.0, 0.07)),
        (anatomy.lookalike, blood[2] + texture(7.0, 0.05)),
        # The target's wall; its veins keep it where they run through the dark lung.
        (anatomy.target - 0.7 * WALL, rng.uniform(0.36, 0.48)),
        (anatomy.target, 1.0 + texture(7.0, 0.05)),
    ]
    for distance, brightness in layers:
        inside = 1 / (1 + np.exp(np.clip(distance / 0.5, -50, 50)))
        image = image * (1 - inside) + brightness * inside
    return image


def _acquire(rng: np.random.Generator, brightness: Array, spacing: Sequence[float]) -> NDArray[np.int16]:
    """A scanner's part: contrast, blur, coil sensitivity, Rician noise, gain."""
    image = np.maximum(brightness, 0) ** rng.uniform(0.8, 1.25)
    image = gaussian_filter(image, rng.uniform(0.5, 0.8, size=3))
    image *= np.exp(rng.uniform(0.1, 0.2) * _smooth_noise(rng, image.shape, spacing, 45.0))
    noise = rng.uniform(0.04, 0.08)
    real = image + noise * rng.standard_normal(image.shape)
    imaginary = noise * rng.standard_normal(image.shape)
    scaled: NDArray[np.int16] = np.round(np.hypot(real, imaginary) * rng.uniform(150, 600)).astype(np.int16)
    return scaled
