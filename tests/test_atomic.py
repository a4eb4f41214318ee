"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from nnunet_sfr.atomic import no_space, remove_leftovers, replacing, write_json
from nnunet_sfr.errors import NO_SPACE, UserError, file_errors_explained

DiskUsage = namedtuple("DiskUsage", "total used free")


def write_half(file: Path, error: BaseException) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half")
        raise error


def test_a_failed_write_keeps_the_older_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json({"a": 1}, file)
    with pytest.raises(KeyboardInterrupt):
        write_half(file, KeyboardInterrupt())
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


KILLED_WHILE_IT_WRITES = """
import os, signal, sys
from pathlib import Path
from nnunet_sfr.atomic import replacing

writing = [replacing(Path(name)) for name in sys.argv[1:]]
for context in writing:
    context.__enter__().write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_is_removed_by_the_next_writer_of_the_same_file(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.json", "b.json")]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_WRITES, *names], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name.endswith(("a.json", "b.json")) and name.startswith(".") for name in left] == [True, True]
    with replacing(tmp_path / "a.json") as still_writing:
        still_writing.write_text("half")
        write_json({}, tmp_path / "a.json.json")
        remove_leftovers(tmp_path, "a.json")
        assert still_writing.exists(), "its process lives"
        other_machine = still_writing.with_name(still_writing.name.replace(".", ".elsewhere-", 1))
        other_machine.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [other_machine.name, left[1], "a.json", "a.json.json"]
    )
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other_machine.name, "a.json", "a.json.json"]


def test_what_an_earlier_process_of_this_number_left_is_removed(tmp_path: Path) -> None:
    """In a container every call can be process 1."""
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "kept").touch()
        remove_leftovers(tmp_path)
        assert (temporary / "kept").exists(), "this call writes it"
    left = [temporary, temporary.with_name(f"{temporary.name}.other")]
    for folder in left:
        folder.mkdir()
        (folder / "half").touch()
    shutil.rmtree(tmp_path / "folder")
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert list((tmp_path / "folder").iterdir()) == []
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_the_temporary_name_keeps_the_suffix_and_hides(tmp_path: Path) -> None:
    with replacing(tmp_path / "deep" / "case.nii.gz") as temporary:
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("case.nii.gz")
        temporary.write_text("whole")
        assert not (tmp_path / "deep" / "case.nii.gz").exists()
    assert (tmp_path / "deep" / "case.nii.gz").read_text(encoding="utf-8") == "whole"


def test_a_full_disk_is_told_whoever_says_so(tmp_path: Path) -> None:
    hidden = RuntimeError("write failed")
    hidden.__cause__ = OSError(28, "No space left on device")
    assert no_space(OSError(28, "No space left on device")) == NO_SPACE[errno.ENOSPC]
    assert no_space(hidden) == NO_SPACE[errno.ENOSPC]
    assert no_space(OSError(errno.EDQUOT, "Disk quota exceeded")) == NO_SPACE[errno.EDQUOT]
    assert no_space(OSError(13, "Permission denied")) is None
    with pytest.raises(UserError, match=r"a\.pth: the disk is full"):
        write_half(tmp_path / "a.pth", hidden)


def test_torch_does_not_say_why_but_the_disk_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save reports a full disk as a RuntimeError without a reason."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(100, 100, 0))
    failure = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    with pytest.raises(UserError, match=r"a\.pth: the disk is full"):
        write_half(tmp_path / "a.pth", failure)
    assert list(tmp_path.iterdir()) == []
    # with room on the disk the same error is a fault of ours, and stays one
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(2**40, 0, 2**40))
    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        write_half(tmp_path / "a.pth", failure)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file/a.json", "file: is a file where a folder is wanted"),
        ("file/folder/a.json", "one of the folders of this path is a file"),
        ("folder", "folder: is a folder where a file is wanted"),
        ("n" * 300, "n: the name is too long for this file system"),
        ("/proc/nothing/a.json", "/proc/nothing: not found, and cannot be made there"),
        ("/proc/a.json", "/proc/a.json: "),
    ],
)
def test_places_that_cannot_be_written_to(place: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("only Linux has it")
    with pytest.raises(UserError, match=said):
        write_json({}, tmp_path / place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "inside"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "may not be accessed"),
        (errno.EROFS, "read-only file system"),
        (errno.EDQUOT, "your quota of disk space is used up"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EIO, "the disk reports an error"),
        (errno.EXDEV, "cross-device link; check the path"),
    ],
)
def test_what_the_operating_system_refuses(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here and while nnU-Net writes, and nothing is left."""

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number), *map(str, arguments[:1]))

    file = tmp_path / "a.json"
    file.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(UserError, match=rf"a\.json: .*{said}"):
            write_json({}, file)
    with pytest.raises(UserError, match=said), replacing(file) as temporary:
        refuse(temporary)
    with pytest.raises(UserError, match=said), file_errors_explained():
        refuse(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text(encoding="utf-8") == "old"
