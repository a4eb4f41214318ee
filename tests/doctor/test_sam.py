"""SAM's weights: there, damaged, of another model, not installed, or to be fetched; nothing is ever fetched."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.doctor.sam import check_checkpoint, check_model, empty_sam
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import CACHE_VARIABLE
from nnunet_sfr.sam_models import MODELS, Wheel
from nnunet_sfr.sam_stage import weights
from nnunet_sfr.sam_stage.sam import build_sam
from tests.tiny_project import PLANS, change_settings, with_two_channels

CPU = torch.device("cpu")
VIT_TINY = {"model": "vit_tiny", "adaptation": "full", "adaptation_settings": {}}
VIT_B = {"model": "vit_b", "adaptation": "lora", "adaptation_settings": {}}
LITE_MEDSAM = {"model": "lite_medsam", "adaptation": "decoder", "adaptation_settings": {}}


def with_sam(project: SFRDataset, **settings: object) -> SFRDataset:
    change_settings(project, {"sam": dict(settings)})
    return open_dataset(project.paths.dataset_name, "3d_fullres", PLANS)


def change_weights(monkeypatch: pytest.MonkeyPatch, model: str, **changes: object) -> None:
    """Replace fields of the record of a model's weights."""
    record = MODELS[model]
    assert record.weights is not None
    monkeypatch.setitem(MODELS, model, replace(record, weights=replace(record.weights, **changes)))  # type: ignore[arg-type]


@pytest.fixture
def small_vit_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vit_b of vit_tiny's sizes, so that its checkpoint is a small file."""
    tiny = MODELS["vit_tiny"]
    small = replace(MODELS["vit_b"], encoder=tiny.encoder, decoder=tiny.decoder, stride=tiny.stride)
    monkeypatch.setitem(MODELS, "vit_b", small)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to fetch anything."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the doctor must not fetch anything")

    monkeypatch.setattr(weights, "download_url_to_file", refuse)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.mark.parametrize(("adaptation", "lighter"), [("adapter", True), ("lora", True), ("few_shot", False)])
def test_an_encoder_that_learns_on_a_cpu(project: SFRDataset, adaptation: str, lighter: bool) -> None:
    dataset = with_sam(project, **{**LITE_MEDSAM, "adaptation": adaptation, "adaptation_settings": {}})
    (finding,) = check_model(dataset, CPU)
    assert finding.remedy == ("use a GPU, or plan with -adaptation few_shot" if lighter else "")
    (finding,) = check_model(dataset, torch.device("cuda"))
    assert finding.level.value == "ok"


@pytest.mark.parametrize(
    ("model", "adaptation", "remedy"),
    [
        *[("lite_medsam", adaptation, "use a GPU") for adaptation in ("few_shot", "decoder", "adapter")],
        ("vit_b", "few_shot", "use a GPU, or plan with -sam lite_medsam -adaptation few_shot"),
    ],
)
def test_an_encoder_that_learns_because_of_the_channels(
    project: SFRDataset, model: str, adaptation: str, remedy: str
) -> None:
    dataset = with_sam(with_two_channels(project), model=model, adaptation=adaptation, adaptation_settings={})
    (finding,) = check_model(dataset, CPU)
    assert (finding.level.value, finding.remedy) == ("note", remedy)
    assert finding.text.endswith("; slow without a GPU: with 2 channels the encoder learns too, which takes hours")
    (finding,) = check_model(dataset, torch.device("cuda"))
    assert finding.level.value == "ok"


def test_vit_tiny_learns_as_a_whole_whatever_the_channels(project: SFRDataset) -> None:
    (finding,) = check_model(with_sam(with_two_channels(project), **VIT_TINY), CPU)
    assert finding.level.value == "ok"


@pytest.mark.usefixtures("cache")
def test_vit_tiny_needs_no_checkpoint(project: SFRDataset) -> None:
    dataset = with_sam(project, **VIT_TINY)
    (model,), (checkpoint,) = check_model(dataset, CPU), check_checkpoint(dataset)
    assert (model.level.value, checkpoint.level.value) == ("ok", "ok")
    assert model.text.startswith("vit_tiny, adaptation full, 4 iterations")


def test_a_large_model_on_a_cpu(project: SFRDataset) -> None:
    dataset = with_sam(project, **{**VIT_B, "adaptation_settings": {"rank": 8}})
    (finding,) = check_model(dataset, CPU)
    assert finding.level.value == "note"
    assert finding.text.startswith("vit_b, adaptation lora (rank 8")
    assert finding.remedy == "use a GPU, or plan with -sam lite_medsam -adaptation few_shot"
    (finding,) = check_model(dataset, torch.device("cuda"))
    assert finding.level.value == "ok"
    (finding,) = check_model(with_sam(project, **LITE_MEDSAM), CPU)
    assert finding.level.value == "ok"


def test_published_weights_that_are_not_there_yet(project: SFRDataset, cache: Path) -> None:
    (finding,) = check_checkpoint(with_sam(project, **VIT_B))
    assert finding.level.value == "note"
    assert finding.text.startswith(f"{cache / 'sam_vit_b_01ec64.pth'}: not there; sfr_finetune will fetch it from http")


def test_published_weights(project: SFRDataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    change_weights(monkeypatch, "vit_b", sha256=hashlib.sha256(content).hexdigest())
    file = cache / "sam_vit_b_01ec64.pth"
    file.write_bytes(content)
    dataset = with_sam(project, **VIT_B)
    (finding,) = check_checkpoint(dataset)
    assert (finding.level.value, finding.text) == ("ok", f"{file}: its SHA-256 is that of the published file")
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"is damaged .* delete it"):
        check_checkpoint(dataset)


@pytest.mark.usefixtures("cache")
def test_weights_in_a_package_that_is_not_installed(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Wheel(distribution="a-package-that-is-not-installed", path="a/b.pth", extra="lite-medsam")
    change_weights(monkeypatch, "lite_medsam", source=source)
    with pytest.raises(UserError, match=r"which is not installed: pip install 'nnunet_sfr\[lite-medsam\]'"):
        check_checkpoint(with_sam(project, **LITE_MEDSAM))


@pytest.mark.usefixtures("cache")
def test_weights_that_must_be_given(project: SFRDataset) -> None:
    with pytest.raises(UserError, match=r"medsam needs the file medsam_vit_b\.pth: download it"):
        check_checkpoint(with_sam(project, **{**VIT_B, "model": "medsam"}))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "not found"), (b"no checkpoint", "truncated, or not a checkpoint")]
)
def test_a_file_that_is_no_checkpoint(content: bytes | None, said: str, project: SFRDataset, tmp_path: Path) -> None:
    file = tmp_path / "sam.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        check_checkpoint(with_sam(project, **LITE_MEDSAM, checkpoint=str(file)))


@pytest.mark.usefixtures("small_vit_b")
def test_a_checkpoint_of_ones_own(project: SFRDataset, tmp_path: Path) -> None:
    """Of another size and number of classes, as the published ones are."""
    file = tmp_path / "sam.pth"
    sam = build_sam("vit_b", input_size=192, in_channels=3, num_classes=4)
    torch.save(sam.state_dict(), file)
    (finding,) = check_checkpoint(with_sam(project, **VIT_B, checkpoint=str(file)))
    assert (finding.level.value, finding.text) == ("ok", f"{file}: a checkpoint of vit_b")
    state = sam.state_dict()
    del state["image_encoder.neck.0.weight"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"lacks image_encoder\.neck"):
        check_checkpoint(with_sam(project, **VIT_B, checkpoint=str(file)))


def test_a_sam_without_memory_has_the_data_sets_sizes(project: SFRDataset) -> None:
    network = empty_sam(with_sam(project, **VIT_TINY))
    assert all(parameter.is_meta for parameter in network.parameters())
    assert (network.input_size, network.num_classes) == (128, 2)
    change_settings(project, {"stitching": {"canvas_size": 130}})
    with pytest.raises(UserError, match=r"SFRPlans\.json: the canvas must be a multiple"):
        empty_sam(open_dataset(project.paths.dataset_name, "3d_fullres", PLANS))
