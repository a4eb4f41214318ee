"""Our resampling of label maps gives what nnU-Net's own gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from scipy.ndimage import gaussian_filter

from nnunet_sfr.data.label_resampling import is_nnunet_default, resample_labels

DEFAULT: dict[str, Any] = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}


def smooth_labels(shape: Sequence[int], classes: int) -> np.ndarray:
    """Random regions of a few voxels, of all classes."""
    noise = np.random.default_rng(0).standard_normal((classes, *shape))
    labels: np.ndarray = gaussian_filter(noise, (0, 1.5, 1.5, 1.5)).argmax(axis=0).astype(np.int8)
    return labels


@pytest.mark.parametrize(
    ("shape", "new_shape", "spacing", "new_spacing"),
    [
        ((9, 14, 12), (18, 28, 24), (2, 2, 2), (1, 1, 1)),  # points half-way between voxels: ties everywhere
        ((9, 14, 12), (13, 31, 17), (2, 2, 2), (1.4, 0.9, 1.4)),
        ((18, 28, 24), (7, 13, 24), (1, 1, 1), (2.6, 2.2, 1)),
        ((6, 20, 20), (13, 30, 31), (5, 1, 1), (2.3, 0.7, 0.6)),  # anisotropic: the nearest slice
        ((1, 20, 20), (1, 31, 30), (999, 1, 1), (999, 0.7, 0.7)),
    ],
)
def test_is_nnunets(
    shape: Sequence[int], new_shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> None:
    labels = smooth_labels(shape, 5)
    wanted = resample_data_or_seg_to_shape(labels[None], new_shape, spacing, new_spacing, **DEFAULT)[0]
    found = resample_labels(labels, new_shape, spacing, new_spacing)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) == 5
    nearest = np.rint(
        resample_data_or_seg_to_shape(labels[None], new_shape, spacing, new_spacing, **{**DEFAULT, "order": 0})[0]
    )
    assert (found != nearest).mean() > 0.005, "interpolation must matter in this example"


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"resampling_fn_seg": "resample_torch_fornnunet"}, False),
        ({"resampling_fn_seg_kwargs": {**DEFAULT, "order": 3}}, False),
        ({"resampling_fn_seg_kwargs": {**DEFAULT, "order_z": 1}}, False),
    ],
)
def test_other_functions_are_left_to_nnunet(changed: dict[str, Any], same: bool) -> None:
    configuration = {
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": DEFAULT,
        **changed,
    }
    assert is_nnunet_default(configuration) is same
