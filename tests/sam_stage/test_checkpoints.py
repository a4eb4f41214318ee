"""Official checkpoints: downloaded safely, recognised, and fitted to other sizes. The files here have the official
names and layout at a small architecture's shapes, and come from a server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_stage import checkpoints
from nnunet_sfr.sam_stage.checkpoints import OFFICIAL_CHECKPOINTS, fetch_official, load_official
from nnunet_sfr.sam_stage.sam import SamArchitecture, SegmentationSAM, build_sam

CONTENT = b"the weights of a network" * 1000
NAME = f"sam_vit_b_{hashlib.sha256(CONTENT).hexdigest()[:6]}.pth"


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
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(OFFICIAL_CHECKPOINTS, "vit_b", NAME)
    _Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


def test_official_file_names_are_metas() -> None:
    assert OFFICIAL_CHECKPOINTS == {
        "vit_b": "sam_vit_b_01ec64.pth",
        "vit_l": "sam_vit_l_0b3195.pth",
        "vit_h": "sam_vit_h_4b8939.pth",
    }


def test_download_and_then_the_cache(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    file = fetch_official("vit_b", cache_folder=folder, base_url=server + "good/")
    assert file == folder / NAME
    assert file.read_bytes() == CONTENT
    assert fetch_official("vit_b", cache_folder=folder, base_url=server + "good/") == file
    assert _Handler.requests == [f"/good/{NAME}"], "the second call must not use the network"
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize(("variable", "below"), [("NNUNET_SFR_CACHE", "."), ("TORCH_HOME", "hub/checkpoints")])
def test_default_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, below: str) -> None:
    monkeypatch.setitem(OFFICIAL_CHECKPOINTS, "vit_b", NAME)
    monkeypatch.delenv("NNUNET_SFR_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / below / NAME).write_bytes(CONTENT)
    assert fetch_official("vit_b") == tmp_path / below / NAME


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("wrong/", "arrived damaged or incomplete"),
        ("short/", "arrived damaged or incomplete"),
        ("missing/", "cannot be downloaded .*404"),
    ],
)
def test_failed_downloads_leave_nothing(server: str, tmp_path: Path, folder: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        fetch_official("vit_b", cache_folder=tmp_path, base_url=server + folder)
    assert str(tmp_path / NAME) in str(caught.value)
    assert f"{server}{folder}{NAME}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(UserError, match=r"put it at .*or set sam\.checkpoint in the SFR plan") as caught:
            fetch_official("vit_b", cache_folder=tmp_path, base_url=url)
    assert str(tmp_path / "sam_vit_b_01ec64.pth") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_in_the_cache_is_not_used(server: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"is damaged .*delete it"):
        fetch_official("vit_b", cache_folder=tmp_path, base_url=server + "good/")
    assert (tmp_path / NAME).is_file(), "the user's file is the user's to delete"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch_official("vit_b", cache_folder=tmp_path / "file" / "cache")


def test_vit_tiny_has_no_checkpoint() -> None:
    with pytest.raises(ValueError, match="vit_tiny has no official checkpoint"):
        fetch_official("vit_tiny")


@pytest.fixture(scope="module")
def official(small: SamArchitecture) -> SegmentationSAM:
    """A network with the official layout: RGB, four mask tokens; every tensor is random, also those that start at 0."""
    torch.manual_seed(10)
    sam = build_sam(small, input_size=64, in_channels=3, num_classes=4)
    with torch.no_grad():
        for tensor in sam.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    return sam


@pytest.fixture
def file(official: SegmentationSAM, tmp_path: Path) -> Path:
    torch.save(official.state_dict(), tmp_path / "sam_small.pth")
    return tmp_path / "sam_small.pth"


def rewrite(file: Path, **changes: Tensor | None) -> None:
    """Change (or, with None, remove) tensors of a checkpoint; dots in names are written as two underscores."""
    state = torch.load(file, weights_only=True)
    for name, tensor in changes.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    torch.save(state, file)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "format before torch 1.6"])
def test_same_sizes_give_the_same_network(
    official: SegmentationSAM, small: SamArchitecture, tmp_path: Path, zipped: bool
) -> None:
    file = tmp_path / "sam.pth"
    torch.save(official.state_dict(), file, _use_new_zipfile_serialization=zipped)
    sam = build_sam(small, input_size=64, in_channels=3, num_classes=4)
    report = load_official(sam, file)
    assert set(report.loaded) == set(official.state_dict())
    assert (report.interpolated, report.new) == ((), ())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(sam(images), official(images))


@pytest.mark.parametrize("num_classes", [2, 6])
def test_other_class_counts_keep_new_tokens(
    official: SegmentationSAM, small: SamArchitecture, file: Path, num_classes: int
) -> None:
    sam = build_sam(small, input_size=64, in_channels=1, num_classes=num_classes)
    tokens = sam.mask_decoder.mask_tokens.weight.clone()
    report = load_official(sam, file)
    new_networks = {
        name
        for index in range(4, num_classes)
        for name in sam.state_dict()
        if name.startswith(f"mask_decoder.output_hypernetworks_mlps.{index}.")
    }
    assert set(report.new) == new_networks | {
        "mask_decoder.mask_tokens.weight",
        "mask_decoder.iou_prediction_head.layers.2.weight",
        "mask_decoder.iou_prediction_head.layers.2.bias",
    }
    assert len(new_networks) == 6 * max(num_classes - 4, 0)
    assert torch.equal(sam.mask_decoder.mask_tokens.weight, tokens)
    ours, theirs = sam.state_dict(), official.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in report.loaded)
    assert sam(torch.randn(1, 1, 64, 64)).shape == (1, num_classes, 64, 64)


def test_other_input_size_interpolates_positions(
    official: SegmentationSAM, small: SamArchitecture, tmp_path: Path
) -> None:
    """Positions that are linear in the coordinate stay linear at any size, which fixes where the samples lie."""
    old, new = 4, 8
    ramp = (torch.arange(old) + 0.5) / old
    table = torch.linspace(-1, 1, 2 * old - 1)
    state = official.state_dict()
    state["image_encoder.pos_embed"] = (ramp[:, None] + 10 * ramp)[None, :, :, None].repeat(1, 1, 1, 48)
    state["image_encoder.blocks.1.attn.rel_pos_h"] = table[:, None].repeat(1, 16)
    torch.save(state, tmp_path / "sam.pth")
    sam = build_sam(small, input_size=16 * new, in_channels=3, num_classes=4)
    report = load_official(sam, tmp_path / "sam.pth")
    assert set(report.interpolated) == {
        "image_encoder.pos_embed",
        "image_encoder.blocks.1.attn.rel_pos_h",
        "image_encoder.blocks.1.attn.rel_pos_w",
    }
    positions = sam.image_encoder.pos_embed.detach()
    assert positions.shape == (1, new, new, 48)
    fine = ((torch.arange(new) + 0.5) / new).clamp(ramp[0], ramp[-1])
    torch.testing.assert_close(positions[0, :, :, 7], fine[:, None] + 10 * fine)
    relative = sam.image_encoder.blocks[1].attn.rel_pos_h.detach()
    assert relative.shape == (2 * new - 1, 16)
    assert relative[new - 1].abs().max().item() < 1e-6, "no distance is still in the middle"
    assert bool((relative[:, 0].diff() >= 0).all())
    # The windows are as large as before, and so are their tables.
    assert torch.equal(sam.image_encoder.blocks[0].attn.rel_pos_h, official.image_encoder.blocks[0].attn.rel_pos_h)
    assert sam(torch.randn(1, 3, 128, 128)).shape == (1, 4, 128, 128)


@pytest.mark.parametrize("in_channels", [2, 5])
def test_equal_channels_give_what_the_grey_image_gives(small: SamArchitecture, file: Path, in_channels: int) -> None:
    grey = build_sam(small, input_size=64, in_channels=1, num_classes=4)
    many = build_sam(small, input_size=64, in_channels=in_channels, num_classes=4)
    load_official(grey, file)
    report = load_official(many, file)
    assert report.interpolated == ("image_encoder.patch_embed.proj.weight",)
    image = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(many(image.repeat(1, in_channels, 1, 1)), grey(image), rtol=1e-4, atol=1e-5)


def load_error(small: SamArchitecture, file: Path) -> str:
    sam = build_sam(small, input_size=64, in_channels=1, num_classes=2)
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_official(sam, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    return message


def test_files_that_are_no_checkpoint(small: SamArchitecture, file: Path, tmp_path: Path) -> None:
    assert "not found; set sam.checkpoint" in load_error(small, tmp_path / "nowhere.pth")
    content = file.read_bytes()
    for broken in (
        b"",
        content[: len(content) // 2],
        content[:-100],
        b"<html>404</html>",
        b"\x80\x02garbage",
        b"PK\x03",
    ):
        file.write_bytes(broken)
        assert "truncated, or not a checkpoint" in load_error(small, file)
    torch.save({"epoch": 3, "weights": torch.zeros(1)}, file)
    assert "not a SAM checkpoint" in load_error(small, file)
    torch.save({"layer.weight": torch.zeros(1)}, file)
    assert "not a SAM checkpoint: it has no image_encoder.pos_embed" in load_error(small, file)


def test_checkpoints_of_other_architectures(small: SamArchitecture, file: Path) -> None:
    blocks = {f"image_encoder.blocks.{index}.norm1.weight": torch.zeros(1024) for index in range(24)}
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024), **blocks}, file)
    assert "has the shape of vit_l, but the plan says small; set sam.model" in load_error(small, file)
    assert "a ViT with 24 blocks of width 1024, but" not in load_error(small, file)
    deep = replace(small, depth=3)
    torch.save(build_sam(deep, input_size=64, in_channels=3, num_classes=4).state_dict(), file)
    assert "has the shape of a ViT with 3 blocks of width 48" in load_error(small, file)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("mask_decoder__iou_token__weight", None, "it lacks mask_decoder.iou_token.weight"),
        ("mask_decoder__mask_tokens__weight", None, "it lacks mask_decoder.mask_tokens.weight"),
        ("extra__weight", torch.zeros(1), "it has the unknown extra.weight"),
        (
            "image_encoder__neck__0__weight",
            torch.zeros(9, 48, 1, 1),
            r"has the shape \[9, 48, 1, 1\] instead of \[32, 48",
        ),
        ("image_encoder__blocks__0__attn__rel_pos_h", torch.zeros(27, 16), r"has the shape \[27, 16\] instead of \[5"),
    ],
)
def test_any_other_mismatch_is_named(
    small: SamArchitecture, file: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    rewrite(file, **{name: tensor})
    sam = build_sam(small, input_size=64, in_channels=1, num_classes=2)
    with pytest.raises(UserError, match=f"not a checkpoint of small: .*{message}"):
        load_official(sam, file)


def test_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "download_url_to_file", full)
    with pytest.raises(UserError, match="the disk is full"):
        fetch_official("vit_b", cache_folder=tmp_path)
