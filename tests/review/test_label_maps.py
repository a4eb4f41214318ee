"""Label maps from the page: what is refused, and that nothing is replaced by what is not whole."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.review.label_maps import largest_upload, pack, read_label_map, unpack, write_label_map
from nnunet_sfr.review.viewer_grid import ViewerGrid
from tests.tiny_dataset import write_image

GRID = ViewerGrid((2, 3, 4), (3.0, 2.0, 1.0), Orientation((1, 0, 2), (-1, 1, 1)))
LABELS = (np.arange(24).reshape(2, 3, 4) % 3).astype(np.uint8)
WHOLE = gzip.compress(bytes(24))


def test_a_label_map_comes_back_as_it_went() -> None:
    packed = pack(LABELS, GRID)
    assert len(packed) <= largest_upload(GRID)
    np.testing.assert_array_equal(unpack(packed, GRID, "case", 2), LABELS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "which has 24 voxels"),
        (b"no gzip at all", "incorrect header check"),
        (WHOLE[:-4], "which has 24 voxels"),
        (WHOLE + b"more", "which has 24 voxels"),
        (gzip.compress(bytes(23)), "which has 24 voxels"),
        (gzip.compress(bytes(25)), "which has 24 voxels"),
        (gzip.compress(bytes(10**7)), "which has 24 voxels"),  # small when it comes, large when unpacked
        (gzip.compress(bytes([3] * 24)), "dataset.json does not name the label 3"),
        (WHOLE[:12] + b"\xff" + WHOLE[13:], "what the page sent is no label map of case heart"),
    ],
)
def test_what_is_no_label_map_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        unpack(body, GRID, "heart", 2)
    assert "nothing was changed" in str(error.value)


@pytest.fixture
def case(tmp_path: Path) -> tuple[RawCase, dict[str, Any]]:
    file = tmp_path / "heart_0000.nii.gz"
    write_image(file, np.zeros((2, 3, 4), np.float32), (3.0, 2.0, 1.0))
    return RawCase("heart", (file,)), SimpleITKIO().read_images([str(file)])[1]


def test_writing_is_exact_and_leaves_nothing_else(case: tuple[RawCase, dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "corrected" / "heart.nii.gz"
    write_label_map(LABELS, file, *case, SimpleITKIO)
    write_label_map(LABELS[::-1], file, *case, SimpleITKIO)
    np.testing.assert_array_equal(read_label_map(SimpleITKIO, file, case[0], GRID, 2), LABELS[::-1])
    assert [entry.name for entry in file.parent.iterdir()] == ["heart.nii.gz"]


def test_what_is_not_written_exactly_replaces_nothing(
    case: tuple[RawCase, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "corrected" / "heart.nii.gz"
    write_label_map(LABELS, file, *case, SimpleITKIO)
    before = file.read_bytes()
    write = SimpleITKIO.write_seg
    monkeypatch.setattr(SimpleITKIO, "write_seg", lambda self, labels, *rest: write(self, labels * 0, *rest))
    with pytest.raises(RuntimeError, match="differs from what was drawn"):
        write_label_map(LABELS[::-1], file, *case, SimpleITKIO)
    monkeypatch.setattr(SimpleITKIO, "write_seg", lambda self, labels, name, properties: Path(name).touch())
    with pytest.raises(UserError, match=r"heart\.nii\.gz"):
        write_label_map(LABELS[::-1], file, *case, SimpleITKIO)
    assert file.read_bytes() == before
    assert len(list(file.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to(case: tuple[RawCase, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "corrected").write_text("a file in the place of the folder")
    with pytest.raises(UserError, match=r"corrected: is a file where a folder is wanted; remove it"):
        write_label_map(LABELS, tmp_path / "corrected" / "heart.nii.gz", *case, SimpleITKIO)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some space and save again"),
        (errno.EDQUOT, "your quota of disk space is used up; free some space and save again"),
        (errno.EIO, "the disk reports an error"),
        (errno.EACCES, "may not be accessed"),
    ],
)
def test_what_the_operating_system_refuses(
    number: int, said: str, case: tuple[RawCase, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(SimpleITKIO, "write_seg", refuse)
    with pytest.raises(UserError, match=rf"heart\.nii\.gz: {said}"):
        write_label_map(LABELS, tmp_path / "corrected" / "heart.nii.gz", *case, SimpleITKIO)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((2, 3, 4), 7), "has the label 7, which dataset.json does not name"),
        (np.full((2, 3, 4), 0.5), r"has the label 0\.5"),
        (np.zeros((2, 3, 5)), r"\(2, 3, 5\) voxels, but the image has \(2, 3, 4\)"),
    ],
)
def test_a_saved_label_map_that_somebody_changed(
    labels: np.ndarray, message: str, case: tuple[RawCase, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "heart.nii.gz"
    write_image(file, labels.astype(np.float32))
    with pytest.raises(UserError, match=message):
        read_label_map(SimpleITKIO, file, case[0], GRID, 2)
