"""SAM's weights: there, damaged, of another model, or to be fetched; nothing is ever fetched."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.doctor.sam import check_checkpoint, check_model, empty_sam
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_stage import checkpoints, sam
from nnunet_sfr.sam_stage.sam import build_sam
from tests.tiny_project import PLANS, change_settings

CPU = torch.device("cpu")
LORA = {"model": "vit_b", "adaptation": "lora"}


def with_sam(project: SFRDataset, **settings: object) -> SFRDataset:
    change_settings(project, {"sam": dict(settings)})
    return open_dataset(project.paths.dataset_name, "3d_fullres", PLANS)


@pytest.fixture
def small_vit_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vit_b of vit_tiny's sizes, so that its checkpoint is a small file."""
    monkeypatch.setitem(sam.ARCHITECTURES, "vit_b", replace(sam.ARCHITECTURES["vit_tiny"], name="vit_b"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to fetch anything."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the doctor must not fetch anything")

    monkeypatch.setattr(checkpoints, "download_url_to_file", refuse)
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_vit_tiny_needs_no_checkpoint(project: SFRDataset, cache: Path) -> None:
    (model,), (checkpoint,) = check_model(project, CPU), check_checkpoint(project)
    assert (model.level.value, checkpoint.level.value) == ("ok", "ok")
    assert model.text.startswith("vit_tiny, adaptation full, 4 iterations")


def test_a_large_model_on_a_cpu(project: SFRDataset) -> None:
    dataset = with_sam(project, **LORA)
    (finding,) = check_model(dataset, CPU)
    assert (finding.level.value, finding.text.split(", ")[1]) == ("note", "adaptation lora of rank 4")
    (finding,) = check_model(dataset, torch.device("cuda"))
    assert finding.level.value == "ok"


def test_an_official_checkpoint_that_is_not_there_yet(project: SFRDataset, cache: Path) -> None:
    (finding,) = check_checkpoint(with_sam(project, **LORA))
    assert finding.level.value == "note"
    assert finding.text.startswith(f"{cache / 'sam_vit_b_01ec64.pth'}: not there; sfr_finetune will fetch it")


def test_the_official_checkpoint(project: SFRDataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    name = f"sam_vit_b_{hashlib.sha256(content).hexdigest()[:6]}.pth"
    monkeypatch.setitem(checkpoints.OFFICIAL_CHECKPOINTS, "vit_b", name)
    (cache / name).write_bytes(content)
    dataset = with_sam(project, **LORA)
    (finding,) = check_checkpoint(dataset)
    assert (finding.level.value, finding.text) == ("ok", f"{cache / name}: its SHA-256 is the official one")
    (cache / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"is damaged .* delete it"):
        check_checkpoint(dataset)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "not found"), (b"no checkpoint", "truncated, or not a checkpoint")]
)
def test_a_file_that_is_no_checkpoint(content: bytes | None, said: str, project: SFRDataset, tmp_path: Path) -> None:
    file = tmp_path / "sam.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        check_checkpoint(with_sam(project, **LORA, checkpoint=str(file)))


@pytest.mark.usefixtures("small_vit_b")
def test_a_checkpoint_of_ones_own(project: SFRDataset, tmp_path: Path) -> None:
    """Of another size and number of classes, as the official ones are."""
    file = tmp_path / "sam.pth"
    weights = build_sam("vit_b", input_size=192, in_channels=3, num_classes=4)
    torch.save(weights.state_dict(), file)
    (finding,) = check_checkpoint(with_sam(project, **LORA, checkpoint=str(file)))
    assert (finding.level.value, finding.text) == ("ok", f"{file}: a checkpoint of vit_b")
    state = weights.state_dict()
    del state["image_encoder.neck.0.weight"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"lacks image_encoder\.neck"):
        check_checkpoint(with_sam(project, **LORA, checkpoint=str(file)))


def test_a_sam_without_memory_has_the_data_sets_sizes(project: SFRDataset) -> None:
    network = empty_sam(project)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert (network.input_size, network.num_classes) == (128, 2)
    change_settings(project, {"stitching": {"canvas_size": 130}})
    with pytest.raises(UserError, match=r"SFRPlans\.json: the canvas must be a multiple"):
        empty_sam(open_dataset(project.paths.dataset_name, "3d_fullres", PLANS))
