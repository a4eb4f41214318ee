"""Data that nnU-Net plans and cannot train are refused, and the plan that was there stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from tests.tiny_dataset import NAME, make_raw_dataset, write_image
from tests.tiny_project import nnunet_folders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(fingerprint, "FOREGROUND_SAMPLES", 1000)
    with nnunet_folders(tmp_path):
        yield tmp_path


def plan(configuration: str = "3d_fullres", **options: object) -> None:
    plan_and_preprocess(
        NAME,
        configurations=[configuration],
        planner="ExperimentPlannerCPU",
        sam="vit_tiny",
        skip_preprocessing=True,
        fingerprint_processes=1,
        **options,  # type: ignore[arg-type]
    )


# cases differ by a voxel: two of the four have the median
@pytest.mark.parametrize(("length", "stages"), [(6, 1), (11, 2)])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_volumes_too_small_for_a_network(root: Path, length: int, stages: int, configuration: str) -> None:
    make_raw_dataset(root / "nnUNet_raw", labelled=2, shape=(length, length, length))
    with pytest.raises(UserError, match=f"too small for {configuration}: .* a network of {stages} stages"):
        plan(configuration)
    assert not (root / "nnUNet_preprocessed" / NAME / "nnUNetPlansCPU.json").exists()


def test_a_planner_that_does_not_resample(root: Path) -> None:
    make_raw_dataset(root / "nnUNet_raw", labelled=2, shape=(24, 24, 24))
    with pytest.raises(UserError, match=r"on their own grids \(no_resampling_hack\), .* choose another -pl$"):
        plan_and_preprocess(
            NAME, configurations=["3d_fullres"], planner="nnUNetPlannerResEncL_noResampling", sam="vit_tiny"
        )
    assert not list((root / "nnUNet_preprocessed" / NAME).glob("nnUNet*Plans*.json"))


def test_a_finer_grid_helps(root: Path) -> None:
    make_raw_dataset(root / "nnUNet_raw", labelled=2, shape=(11, 11, 11))
    plan(target_spacing=(0.5, 0.5, 0.5))
    plans = root / "nnUNet_preprocessed" / NAME / "nnUNetPlansCPU.json"
    before = plans.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="too small"):
        plan(target_spacing=(1.0, 1.0, 1.0))
    assert plans.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("spacing", "voxels"), [(1e-3, "0 x 0 x 0"), (1e3, "18000 x 22000 x 20000")])
def test_a_case_in_another_unit(root: Path, spacing: float, voxels: str) -> None:
    make_raw_dataset(root / "nnUNet_raw", labelled=3, unlabelled=2)
    image = root / "nnUNet_raw" / NAME / "imagesUl/unlabelled_00_0000.nii.gz"
    write_image(image, np.arange(18 * 22 * 20, dtype=np.float32).reshape(18, 22, 20), (spacing,) * 3)
    with pytest.raises(UserError, match=f"^{image}: case unlabelled_00, of 18 x 22 x 20 voxels .* would have {voxels}"):
        plan()
