"""Millilitres from voxels, and which volumes are far from the others."""

from __future__ import annotations

import pytest

from nnunet_sfr.report.volumes import find_outliers, volumes_ml


def test_volumes_of_an_anisotropic_grid() -> None:
    # 5 x 0.8 x 0.5 mm = 2 mm3 a voxel
    assert volumes_ml({"0": 900_000, "1": 1500, "2": 0}, (5.0, 0.8, 0.5)) == pytest.approx({"1": 3.0, "2": 0.0})


def pool(*volumes: float) -> dict[str, dict[str, float]]:
    return {f"case_{index}": {"1": volume} for index, volume in enumerate(volumes)}


def test_an_outlier_is_far_from_the_median_of_the_logarithms() -> None:
    # logs of 8, 9, 10, 11, 12.5 around 10: MAD is log(10/9) = 0.105, the limit 3.5 x 1.4826 x 0.105 = 0.547
    usual = [8.0, 9.0, 10.0, 10.0, 10.0, 11.0, 12.5, 9.0, 11.1]
    found = find_outliers(pool(*usual, 6.0, 17.0, 100.0))
    assert {case for case, labels in found.items() if labels} == {"case_11"}
    found = find_outliers(pool(*usual, 3.0, 0.0))
    assert {case: labels for case, labels in found.items() if labels} == {"case_9": ["1"], "case_10": ["1"]}


def test_few_cases_have_no_outliers() -> None:
    assert not any(find_outliers(pool(10, 11, 10, 12, 9, 10, 0)).values())
    assert any(find_outliers(pool(10, 11, 10, 12, 9, 10, 10, 0)).values())


def test_a_class_that_half_of_the_cases_lack_is_missed_by_none() -> None:
    assert not any(find_outliers(pool(10, 11, 12, 13, 0, 0, 0, 0)).values())


def test_equal_volumes_do_not_make_the_least_difference_an_outlier() -> None:
    found = find_outliers(pool(*[10.0] * 8, 10.1))
    assert not any(found.values())
