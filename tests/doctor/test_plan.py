"""Capacity and coverage of a mosaic, by numbers that were worked out by hand, and plans that are out of date."""

from __future__ import annotations

import os

import pytest

from nnunet_sfr.atomic import write_json
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.plan import (
    check_freshness,
    check_plan,
    measure_mosaic,
    slice_spacings,
    volumes,
)
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.settings import StitchingSettings
from tests.doctor.levels import levels, only
from tests.tiny_project import make_project, nnunet_folders


def test_a_mosaic_that_shows_the_median_volume_whole() -> None:
    """The left atrium at 2.5 mm: 256 // 40 = 6 rows, 256 // 58 = 4 columns, 22 slices of 24; 51040 of 65536 pixels."""
    stitching = StitchingSettings(patch_size=(22, 40, 58), canvas_size=256)
    mosaic = measure_mosaic(stitching, [(22, 35, 46), (22, 40, 58), (22, 36, 50)], (2.5, 2.5, 2.5))
    assert (mosaic.rows, mosaic.columns, mosaic.used) == (6, 4, 22)
    assert mosaic.filled == pytest.approx(51040 / 65536)
    assert mosaic.extent == (55.0, 100.0, 145.0)
    assert mosaic.shares == (1.0, 1.0, 1.0)
    assert mosaic.volume_share == 1.0


def test_a_mosaic_that_shows_a_part() -> None:
    """10 x 10 slices of 102; shares per volume: (1/2, 1/5, 1/5), (1, 1/4, 1/4), (1/3, 1/5, 1/2)."""
    stitching = StitchingSettings(patch_size=(100, 102, 102), canvas_size=1024)
    shapes = [(200, 510, 510), (80, 408, 408), (300, 510, 204)]
    mosaic = measure_mosaic(stitching, shapes, (3.0, 0.8, 0.8))
    assert (mosaic.rows, mosaic.columns, mosaic.used) == (10, 10, 100)
    assert mosaic.extent == pytest.approx((300.0, 81.6, 81.6))
    assert mosaic.shares == pytest.approx((1 / 2, 1 / 5, 1 / 4))
    # the median of 1/50, 1/16 and 1/30, and not the product of the medians
    assert mosaic.volume_share == pytest.approx(1 / 30)


def test_a_mosaic_with_a_scale_counts_scaled_pixels_and_voxels_of_the_patch() -> None:
    """22 x 40 x 58 voxels at (1/2, 2, 2): 11 slices of 80 x 116, of which 512 pixels hold 6 x 4."""
    stitching = StitchingSettings(patch_size=(22, 40, 58), canvas_size=512, scale=(0.5, 2.0, 2.0))
    mosaic = measure_mosaic(stitching, [(44, 40, 58)], (2.5, 2.5, 2.5))
    assert (mosaic.rows, mosaic.columns, mosaic.used) == (6, 4, 11)
    assert mosaic.filled == pytest.approx(11 * 80 * 116 / 512**2)
    assert mosaic.extent == (55.0, 100.0, 145.0)
    assert mosaic.shares == (0.5, 1.0, 1.0)
    assert mosaic.volume_share == 0.5


def test_the_lines_of_a_planned_data_set(project: SFRDataset) -> None:
    """Cases of 18 x 22 x 20 to 20 x 24 x 22 voxels of 1 mm: a canvas of 128 has 5 x 5 places for 20 slices."""
    findings = check_plan(project, project.settings.stitching)
    assert levels(findings) == ["ok", "ok", "ok"]
    assert findings[1].text == (
        "20 x 24 x 22 voxels on a canvas of 128: room for 5 x 5 = 25 slices, 20 used, 64 % of the pixels filled"
    )
    assert findings[2].text.startswith("20 x 24 x 22 mm: 100 %, 100 %, 100 % of depth, height and width")


def test_the_line_of_a_mosaic_with_a_scale(project: SFRDataset) -> None:
    stitching = StitchingSettings(patch_size=(20, 24, 22), canvas_size=256, scale=(0.5, 2.0, 1.5))
    findings = check_plan(project, stitching)
    # 256 // 48 = 5 rows, 256 // 33 = 7 columns; 10 * 48 * 33 of 65536 pixels
    assert findings[1].text == (
        "20 x 24 x 22 voxels at a scale of 0.5 x 2 x 1.5, 10 x 48 x 33 pixels, on a canvas of 256: room for 5 x 7 = 35 "
        "slices, 10 used, 24 % of the pixels filled"
    )
    assert findings[2].text.startswith("20 x 24 x 22 mm: 100 %, 100 %, 100 % of depth, height and width")


def test_volumes_and_spacings_are_those_of_the_preprocessed_grid(project: SFRDataset) -> None:
    fingerprint = read_fingerprint(project.paths.fingerprint_file)
    assert volumes(project, fingerprint)[:3] == [(18, 22, 20), (19, 23, 21), (20, 24, 22)]
    assert slice_spacings(project, fingerprint) == (1.0, 1.0, 1.0)


def test_a_2d_configuration_keeps_the_distance_of_the_slices(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("flat")
    with nnunet_folders(root):
        dataset = make_project(root, "2d", spacing=(4.0, 1.0, 1.0))
        assert slice_spacings(dataset, read_fingerprint(dataset.paths.fingerprint_file)) == (4.0, 1.0, 1.0)
        assert check_plan(dataset, dataset.settings.stitching)[2].text.startswith("80 x 24 x 22 mm")


def test_images_that_changed_since_planning(project: SFRDataset) -> None:
    assert check_freshness(project) == []
    image = next(project.paths.raw_unlabelled.iterdir())
    os.utime(image, ns=(1, 1))
    assert check_freshness(project) == [], "a copy is the same file"
    image.write_bytes(b"")
    assert only(check_freshness(project), "problem").remedy == "run sfr_plan_and_preprocess again"


def test_a_fingerprint_of_nnunets_own(project: SFRDataset) -> None:
    fingerprint = read_fingerprint(project.paths.fingerprint_file)
    del fingerprint["nnunet_sfr"]
    write_json(fingerprint, project.paths.preprocessed / "dataset_fingerprint.json")
    assert "labelled images alone" in only(check_freshness(project), "note").text


def test_raw_data_that_planning_refuses_are_reported_elsewhere(project: SFRDataset) -> None:
    (project.paths.raw / "dataset.json").unlink()
    assert check_freshness(project) == []
