"""Which grey windows a report offers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.report.windows import choose_windows, percentile_levels

ABDOMEN = {"mean": -32.5, "std": 244.0, "median": 33.0, "percentile_00_5": -1015.0, "percentile_99_5": 316.0}
LIVER = {"mean": 99.0, "std": 42.0, "median": 100.0, "percentile_00_5": -17.0, "percentile_99_5": 201.0}
LUNG_NODULES = {"mean": -300.0, "std": 300.0, "median": -400.0, "percentile_00_5": -1000.0, "percentile_99_5": 300.0}


def data_set(properties: dict[str, float], scheme: str = "CTNormalization") -> Any:
    return SimpleNamespace(configuration={"normalization_schemes": [scheme]}, foreground_intensities={"0": properties})


@pytest.mark.parametrize(
    ("properties", "keys"),
    [
        (ABDOMEN, ["soft_tissue", "lung"]),  # of the bone window, -500 to 316 of 1300 is left
        (LIVER, ["soft_tissue"]),
        (LUNG_NODULES, ["lung", "soft_tissue"]),
    ],
)
def test_windows_of_which_nothing_is_left_are_not_offered(properties: dict[str, float], keys: list[str]) -> None:
    assert [window.key for window in choose_windows(data_set(properties))] == keys


def test_windows_are_in_preprocessed_values() -> None:
    own, soft, _ = choose_windows(data_set(ABDOMEN), own=(0.0, 80.0))
    assert own.name == "chosen (0 to 80 HU)"
    assert own.levels == pytest.approx(((0 + 32.5) / 244, (80 + 32.5) / 244))
    assert soft.name == "soft tissue (\N{MINUS SIGN}160 to 240 HU)"
    assert soft.levels_of(np.zeros(3)) == pytest.approx(((-160 + 32.5) / 244, (240 + 32.5) / 244))


def test_images_that_are_not_ct_have_their_own_levels() -> None:
    (window,) = choose_windows(data_set({}, scheme="ZScoreNormalization"))
    values = np.arange(1001, dtype=np.float32)
    assert window.levels_of(values) == percentile_levels(values) == (5.0, 995.0)
    with pytest.raises(UserError, match="not normalised as CT: leave it out"):
        choose_windows(data_set({}, scheme="ZScoreNormalization"), own=(0.0, 80.0))


def test_a_window_rises() -> None:
    with pytest.raises(UserError, match="--window 80 0: the first number must be the lower one"):
        choose_windows(data_set(ABDOMEN), own=(80.0, 0.0))
