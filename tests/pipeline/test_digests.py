"""What counts as the same content."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_sfr.pipeline.digests import ANY, FileSet, HashCache, differing, merged
from nnunet_sfr.pipeline.parts import label_meaning_part


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(b"content")
    return path


def age(file: Path) -> None:
    """Let it be written a while ago, as most files are."""
    past = time.time() - 1000
    os.utime(file, (past, past))


def test_content_and_names_count_and_folders_do_not(file: Path, tmp_path: Path) -> None:
    cache = HashCache(tmp_path / "hashes.json")
    digest = cache.digests({"x": FileSet.of(file)})["x"]
    (tmp_path / "moved").mkdir()
    for name, content, is_same in (
        ("moved/image.nii.gz", b"content", True),
        ("moved/other.nii.gz", b"content", False),
        ("moved/image.nii.gz", b"Content", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert (cache.digests({"x": FileSet.of(tmp_path / name)})["x"] == digest) is is_same
    assert cache.digests({"x": FileSet.of(tmp_path / "nowhere")})["x"] != digest
    assert cache.digests({"x": {"a": 1, "b": 2}}) == cache.digests({"x": {"b": 2, "a": 1}})


def test_an_unchanged_file_is_read_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(file)
    cache = HashCache(tmp_path / "hashes.json")
    digests = cache.digests({"x": FileSet.of(file)})
    cache.save()
    next_call = HashCache(tmp_path / "hashes.json")
    monkeypatch.setattr(Path, "open", None)  # whoever reads a file now fails
    assert next_call.digests({"x": FileSet.of(file)}) == digests


def test_a_file_that_was_just_written_is_not_trusted(file: Path, tmp_path: Path) -> None:
    """On coarse file systems a second change has the same time."""
    cache = HashCache(tmp_path / "hashes.json")
    before = file.stat()
    digests = cache.digests({"x": FileSet.of(file)})
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.digests({"x": FileSet.of(file)}) != digests


def test_a_damaged_cache_is_no_loss(file: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes.json").write_text("{")
    age(file)
    cache = HashCache(tmp_path / "hashes.json")
    digests = cache.digests({"x": FileSet.of(file)})
    cache.save()
    assert HashCache(tmp_path / "hashes.json").digests({"x": FileSet.of(file)}) == digests


def test_what_is_not_asked_for_differs_from_nothing(tmp_path: Path) -> None:
    before = {"-sam": "one", "-pl": ANY, "images": "two", "gone": "three"}
    now = {"-sam": ANY, "-pl": "given", "images": "two", "new": "four"}
    assert differing(before, now) == ["-pl", "new", "gone"]
    assert merged(before, now) == {"-sam": "one", "-pl": "given", "images": "two", "new": "four"}
    assert HashCache(tmp_path / "hashes.json").digests({"-sam": None}) == {"-sam": ANY}


def test_the_older_name_of_the_channels_counts_where_it_is(tmp_path: Path) -> None:
    """Elsewhere it has no place, so that the digests of earlier versions still hold."""
    file = tmp_path / "dataset.json"
    project: Any = SimpleNamespace(paths=SimpleNamespace(dataset_json=file))

    def part(**channels: dict[str, str]) -> Any:
        file.write_text(json.dumps({"labels": {"background": 0}, "file_ending": ".nii.gz", **channels}))
        return label_meaning_part(project)["dataset.json"]

    assert part(modality={"0": "CT"}) != part(modality={"0": "MRI"})
    assert part(channel_names={"0": "CT"}) == {
        "labels": {"background": 0},
        "regions_class_order": None,
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
    }
