"""The disk space of embedded views, by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.doctor.disk import check_views, expected_views
from nnunet_sfr.sam_stage.views import ViewStore, bytes_of_view
from tests.tiny_project import PLANS, change_settings, with_two_channels

BYTES = 2 * (256 * 32 * 32 + 128 * 128) + 200
"""LiteMedSAM's embedding and a label map of a canvas of 128, with a header."""


@pytest.fixture
def frozen(project: SFRDataset) -> SFRDataset:
    """Three labelled cases of at most 20 x 24 x 22 voxels: one patch each."""
    sam = {"model": "lite_medsam", "adaptation": "decoder", "adaptation_settings": {}}
    stitching = {"patch_size": [20, 24, 24], "canvas_size": 128, "slice_axes": [0]}
    change_settings(project, {"sam": sam, "stitching": stitching, "fine_tuning": {"views": 5, "iterations": 60}})
    return reopened(project)


def reopened(project: SFRDataset) -> SFRDataset:
    return open_dataset(project.paths.dataset_name, project.paths.configuration, PLANS)


def with_free_space(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_every_case_has_its_views_across_every_axis(frozen: SFRDataset) -> None:
    assert expected_views(frozen) == (3 * 5, BYTES)
    change_settings(frozen, {"stitching": {"slice_axes": [0, 2]}})
    assert expected_views(reopened(frozen)) == (2 * 3 * 5, BYTES)


def test_no_more_views_than_will_be_drawn(frozen: SFRDataset) -> None:
    """Six draws over three cases: two each, beside the patch itself."""
    change_settings(frozen, {"fine_tuning": {"iterations": 6, "batch_size": 1, "validation_every": 6}})
    assert expected_views(reopened(frozen))[0] == 3 * 3


def test_space_is_compared_with_what_is_free_and_there(frozen: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_space(monkeypatch, 15 * BYTES)
    (finding,) = check_views(frozen)
    assert (finding.level.value, finding.text) == ("ok", "15 embedded views, 0.01 GiB (estimated); 0.01 GiB free")
    with_free_space(monkeypatch, 15 * BYTES - 1)
    (finding,) = check_views(frozen)
    assert finding.level.value == "problem"
    assert finding.text.endswith(f"{frozen.paths.sam_views} has 0.01 GiB free")
    view = frozen.paths.sam_views / "labelled" / "case" / "view_00000.safetensors"
    view.parent.mkdir(parents=True)
    view.write_bytes(b"1")
    (finding,) = check_views(frozen)
    assert finding.level.value == "ok"


def test_without_a_frozen_encoder_there_are_no_views(project: SFRDataset) -> None:
    assert check_views(project) == []


def test_without_the_published_first_layer_there_are_no_views(frozen: SFRDataset) -> None:
    """Two channels have a first layer of their own, which learns."""
    assert check_views(with_two_channels(frozen)) == []


def test_a_file_has_about_the_expected_size(tmp_path: Path) -> None:
    ViewStore(tmp_path).write("case", 0, torch.zeros(32, 4, 4), torch.zeros(16, 16))
    (file,) = tmp_path.rglob("*.safetensors")
    assert abs(file.stat().st_size - bytes_of_view((32, 4, 4), 16)) < 64
    shutil.rmtree(tmp_path / "case")
