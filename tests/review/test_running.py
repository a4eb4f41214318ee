"""The command: from the address to the last line, and the mistakes that end it."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.entry_points import review as command
from nnunet_sfr.errors import UserError
from nnunet_sfr.review import running
from nnunet_sfr.review.lock import only_review
from nnunet_sfr.review.redirect import redirect_file
from nnunet_sfr.review.serving import bind
from tests.conftest import REPOSITORY

OPTIONS: dict[str, Any] = {
    "configuration": "3d_fullres",
    "plans": "nnUNetPlansCPU",
    "fold": "all",
    "typed": "sfr_review",
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sfr_review", "-d", "42", "-p", "nnUNetPlansCPU", *arguments])
    code: int = command.main()
    return code


def test_a_review_from_begin_to_end(
    project: SFRDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses: list[str] = []
    opened: list[Path] = []

    def look(address: str) -> bool:
        # which stands on the browser's command line, for every user of the machine to read
        opened.append(Path(urllib.request.url2pathname(urlsplit(address).path)))
        [found] = re.findall('url=(http://[^"]+)"', opened[0].read_text(encoding="utf-8"))
        addresses.append(found)
        assert urlsplit(found).path.strip("/") not in address
        if os.name == "posix":
            assert stat.S_IMODE(opened[0].stat().st_mode) == 0o600
        with urllib.request.urlopen(f"{found}session") as answer:
            assert answer.status == 200
        stop.set()
        return False

    stop = threading.Event()
    monkeypatch.setattr("webbrowser.open", look)
    running.review("42", **OPTIONS, stop=stop)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"the page is {addresses[0]}"
    assert lines[1].startswith("from another machine: ssh -C -N -L ")
    assert lines[2:] == [
        "2 cases; end with Ctrl-C, nothing is lost",
        "no browser was found: open the address yourself",
        "0 cases are decided; the same command continues",
    ]
    assert not opened[0].exists()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(addresses[0])
    running.review("42", **OPTIONS, stop=stop, open_browser=False)  # the lock is free again
    assert len(addresses) == 1
    assert addresses[0] not in capsys.readouterr().out  # every review has a token of its own


def test_the_file_for_the_browser_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nnUNet_results is relative."""
    monkeypatch.chdir(tmp_path)
    with redirect_file("http://127.0.0.1:1/token/", Path()) as file:
        assert file == tmp_path / "open.html"
    assert not file.exists()


def test_a_port_is_free_again_when_the_review_has_ended() -> None:
    with bind(None) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: cannot be used"):
            bind(port)
        with socket.create_connection(("127.0.0.1", port)) as browser:
            answering, _ = listening.accept()
            answering.close()  # who closes first remembers the connection for a minute
            assert browser.recv(1) == b""
    bind(port).close()


def test_ctrl_c_is_the_usual_end(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", interrupt)
    running.review("42", **OPTIONS, stop=stop, open_browser=False)


@pytest.mark.parametrize("what", ["port", "lock", "stores", "images", "folder"])
def test_mistakes_are_one_line(
    what: str, project: SFRDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {
        "port": "port {port}: cannot be used (Address already in use); choose another with --port",
        "lock": "another sfr_review is open on this data set",
        "stores": "there are no pseudo-labels",
        "images": "the image of case unlabelled_00 is missing; put it back",
        "folder": "SFR_review: is a file where a folder is wanted",
    }[what]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if what == "stores":
            (project.paths.pseudo_labels("all") / "manifest.json").unlink()
        if what == "images":
            (project.paths.raw_unlabelled / "unlabelled_00_0000.nii.gz").unlink()
        if what == "folder":
            project.paths.results.mkdir(parents=True, exist_ok=True)
            project.paths.review.write_text("a file in the place of the folder")
        if what == "lock":
            with only_review(project.paths.review, "sfr_review -d 42"):
                code = call(monkeypatch, "--no-browser")
        else:
            code = call(monkeypatch, "--no-browser", *(["--port", str(port)] if what == "port" else []))
    error = capsys.readouterr().err.splitlines()
    assert (code, len(error)) == (1, 1)
    assert wanted.format(port=port) in error[0]
    assert error[0].startswith("error: ")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_ports_that_there_are_not(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--port={port}")
    assert f"must be a number from 1 to 65535, got {port!r}" in capsys.readouterr().err


def test_importing_the_other_commands_needs_no_server(tmp_path: Path) -> None:
    folder = Path(command.__file__).parent
    users = [file.name for file in folder.glob("*.py") if "nnunet_sfr.review" in file.read_text(encoding="utf-8")]
    assert users == ["review.py"]
    package = folder.parent / "nnunet_sfr"
    libraries = ("import uvicorn", "from starlette")
    files = [
        file
        for file in package.rglob("*.py")
        if any(library in file.read_text(encoding="utf-8") for library in libraries)
    ]
    assert {file.parent.name for file in files} == {"review"}


LIST = """
import sys
from concurrent.futures import ThreadPoolExecutor

from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.review.session import Session

with ThreadPoolExecutor(1) as executor:
    session = Session(open_dataset(42), "all", executor)
    print([case["name"] for case in session.to_json()["cases"]])
print(sorted({"torch", "nnunetv2", "SimpleITK", "nibabel", "blosc2", "scipy"} & set(sys.modules)))
"""


def test_the_cases_are_listed_without_what_takes_seconds_to_import(project: SFRDataset) -> None:
    ended = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert ended.stdout.splitlines() == ["['unlabelled_00', 'unlabelled_01']", "[]"]
