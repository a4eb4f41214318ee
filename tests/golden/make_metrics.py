"""Writes metrics.npz: pairs of masks, and what MedPy says about them. Needs ``pip install MedPy==0.5.2``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from medpy.metric import binary
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

FILE = Path(__file__).with_name("metrics.npz")


def smooth_mask(shape: tuple[int, int, int], seed: int, threshold: float) -> Mask:
    """Smooth noise above a threshold, which touches the border of the volume."""
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).standard_normal(shape), 3)
    mask: Mask = noise > threshold * noise.std()
    return mask


def atrium(shape: tuple[int, int, int], seed: int) -> Mask:
    """An ellipsoid with a wavy surface and a tube, of the size of a left atrium; it keeps off the border."""
    axes = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    wave = ndimage.gaussian_filter(np.random.RandomState(seed).standard_normal(shape), 4)
    body = sum((axis / size) ** 2 for axis, size in zip(axes, (0.5, 0.6, 0.55), strict=True))
    tube = (axes[0] ** 2 + axes[2] ** 2 < 0.02) & (np.abs(axes[1]) < 0.85)
    mask: Mask = (body + 0.3 * wave / wave.std() < 1) & (body < 1.6) | tube
    return mask


def pairs() -> dict[str, tuple[Mask, Mask]]:
    """(prediction, truth) by name."""
    first, second, third = atrium((91, 70, 44), 1), atrium((90, 67, 44), 2), atrium((93, 73, 44), 3)
    cross = ndimage.generate_binary_structure(3, 1)
    dilated = ndimage.binary_dilation(second, cross, iterations=3)
    dilated[:8, :8, :6] = True
    shifted = np.roll(third, (4, -3, 2), axis=(0, 1, 2))
    shifted[46:51] = False
    box = np.zeros((24, 20, 16), bool)
    box[6:14, 5:12, 4:11] = True
    without_face = box.copy()
    without_face[6] = False
    without_face[20, 17, 13] = True
    return {
        "eroded": (ndimage.binary_erosion(first, cross, iterations=2), first),
        "dilated": (dilated, second),
        "shifted": (shifted, third),
        "box": (without_face, box),
        "border": (smooth_mask((30, 26, 22), 4, 0.3), smooth_mask((30, 26, 22), 5, 0.0)),
    }


def measured(prediction: Mask, truth: Mask) -> list[float]:
    """Dice, Jaccard, HD95 and ASD in voxels (ASD from the surface of the prediction to that of the truth)."""
    return [measure(prediction, truth) for measure in (binary.dc, binary.jc, binary.hd95, binary.asd)]


def main() -> None:
    arrays: dict[str, Any] = {}
    for name, (prediction, truth) in pairs().items():
        arrays[f"{name}.shape"] = np.array(truth.shape, np.int32)
        arrays[f"{name}.pred"], arrays[f"{name}.gt"] = np.packbits(prediction), np.packbits(truth)
        arrays[f"{name}.dc_jc_hd95_asd"] = np.array(measured(prediction, truth))
        arrays[f"{name}.asd_of_truth"] = np.array(binary.asd(truth, prediction))
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
