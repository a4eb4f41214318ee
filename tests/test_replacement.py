"""Results that are replaced, and set aside; killed anywhere, nothing complete is lost."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from nnunet_sfr.replacement import (
    finish_replacement,
    kept_aside,
    new_folder,
    remove_kept_aside,
    replace_folder,
    set_aside,
)


def write(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "round_0", "old")
    write(new_folder(folder), "new")
    replace_folder(folder)
    assert (folder / "file").read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["round_0"]


@pytest.mark.parametrize("renamed", [0, 1])
def test_killed_while_it_is_replaced(renamed: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "round_0", "old")
    write(new_folder(folder), "new")
    rename, calls = os.rename, 0

    def killed(source: Path, target: Path) -> None:
        nonlocal calls
        if calls == renamed:
            raise KeyboardInterrupt
        calls += 1
        rename(source, target)

    with mock.patch.object(os, "rename", killed), pytest.raises(KeyboardInterrupt):
        replace_folder(folder)
    finish_replacement(folder)
    # before the first renaming nothing has happened; after it there is no way back
    assert (folder / "file").read_text(encoding="utf-8") == ("old", "new")[renamed]
    assert names(tmp_path) == ([".new", ".old", "round_0"], ["round_0"])[renamed]


def test_a_new_folder_alone_is_no_killed_replacement(tmp_path: Path) -> None:
    folder = tmp_path / "round_0"
    write(new_folder(folder), "half")
    finish_replacement(folder)
    assert not folder.exists()


def test_what_is_set_aside_first_is_kept(tmp_path: Path) -> None:
    folder = write(tmp_path / "round_0", "good")
    for attempt in ("bad", "worse"):
        set_aside(folder)
        assert not folder.exists()
        write(folder, attempt)
    set_aside(folder)
    assert (kept_aside(folder) / "file").read_text(encoding="utf-8") == "good"
    remove_kept_aside(folder)
    assert names(tmp_path) == []
    set_aside(folder)
    assert names(tmp_path) == []


def test_parts_of_a_folder_are_set_aside_together(tmp_path: Path) -> None:
    training = write(tmp_path / "fold_all", "of the user")
    parts = [training / name for name in ("final", "latest", "validation")]
    write(training / "validation", "summary")
    (training / "final").write_text("good")
    with (
        mock.patch.object(os, "rename", side_effect=[None, KeyboardInterrupt]),
        pytest.raises(KeyboardInterrupt),
    ):
        set_aside(training, parts)
    set_aside(training, parts)
    assert names(training) == ["file"]
    assert names(kept_aside(training)) == ["final", "validation"]
    (training / "latest").write_text("bad")
    set_aside(training, parts)
    assert names(training) == ["file"]
    assert names(kept_aside(training)) == ["final", "validation"]
    remove_kept_aside(training)
    assert names(tmp_path) == ["fold_all"]
