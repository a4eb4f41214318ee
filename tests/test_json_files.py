"""JSON as users leave it: one line that names file and entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json, read_json_list

PLAN = {"configurations": {...: {"spacing": [float], "batch_size?": int}}, "name?": str | None}


def read(content: bytes, tmp_path: Path, shape: Any = PLAN) -> dict[str, Any]:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    return read_json(file, "plan again", shape)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"plan\.json: is empty; plan again"),
        (b" \n", "is empty"),
        (b"{", "cannot be read as JSON"),
        (b"\x80\x02}q\x00.", "cannot be read as JSON"),
        (b'{"name": "\xe4"}', "cannot be read as JSON .*utf-8"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "expected an object, got a list; plan again"),
        (b"null", "expected an object, got null"),
        (b"3", "expected an object, got 3"),
        (b"{}", "the key configurations is missing"),
        (b'{"configurations": []}', "configurations: expected an object, got a list"),
        (b'{"configurations": {"2d": 1}}', "configurations.2d: expected an object, got 1"),
        (b'{"configurations": {"2d": {}}}', "the key configurations.2d.spacing is missing"),
        (b'{"configurations": {"2d": {"spacing": 1}}}', "configurations.2d.spacing: expected a list, got 1"),
        (b'{"configurations": {"2d": {"spacing": [1, "x"]}}}', r"spacing\[1\]: expected a finite number, got 'x'"),
        (b'{"configurations": {"2d": {"spacing": [NaN]}}}', r"spacing\[0\]: expected a finite number, got nan"),
        (b'{"configurations": {"2d": {"spacing": [true]}}}', r"expected a finite number, got true or false"),
        (b'{"configurations": {"2d": {"spacing": [], "batch_size": 2.5}}}', "batch_size: expected a whole number, got"),
        (b'{"configurations": {}, "name": 3}', "name: expected text or null, got 3"),
    ],
)
def test_a_file_of_the_wrong_shape(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as raised:
        read(content, tmp_path)
    assert str(tmp_path / "plan.json") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json(encoding: str, tmp_path: Path) -> None:
    content = '{"configurations": {"2d": {"spacing": [1, 0.5]}}, "name": "Präparat"}'
    assert read(content.encode(encoding), tmp_path)["name"] == "Präparat"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json: not found; plan again"):
        read_json(tmp_path / "missing.json", "plan again")
    with pytest.raises(UserError, match="is a folder where a file is wanted"):
        read_json(tmp_path, "plan again")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="one of the folders of this path is a file"):
        read_json(tmp_path / "file" / "plan.json", "plan again")


def test_a_list(tmp_path: Path) -> None:
    file = tmp_path / "splits.json"
    file.write_text('[{"val": ["a"]}, {"val": "b"}]')
    with pytest.raises(UserError, match=r"\[1\]\.val: expected a list, got 'b'"):
        read_json_list(file, "delete it", {"val": [str]})
    file.write_text('{"val": []}')
    with pytest.raises(UserError, match="expected a list, got an object"):
        read_json_list(file, "delete it", {"val": [str]})
