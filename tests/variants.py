"""Data sets of every kind that nnU-Net plans, as options of :func:`tests.tiny_project.make_project`."""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "3d": {},
    "2d": {"configuration": "2d", "shape": (10, 40, 36)},
    "two channels": {"channels": 2},
    # flat patches, for which nnU-Net rotates slice by slice ("dummy 2D" augmentation)
    "four classes, anisotropic": {"classes": 4, "spacing": (5.0, 1.0, 1.0), "shape": (6, 40, 36)},
    "regions": {"classes": 2, "labels": {"background": 0, "whole": [1, 2], "core": 2}},
    "ignore label": {"classes": 2, "labels": {"background": 0, "blob": 1, "ignore": 2}},
}

LOW_RESOLUTION: dict[str, Any] = {"configuration": "3d_lowres", "shape": (64, 80, 80)}
"""Large enough for nnU-Net to plan 3d_lowres, and therefore slow: for a single test."""
