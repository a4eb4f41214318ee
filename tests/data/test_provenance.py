"""What made the labels of a store: written, read, compared and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.plans import SFRConfiguration
from nnunet_sfr.settings import StitchingSettings

SETTINGS = SFRConfiguration(stitching=StitchingSettings(patch_size=(8, 8, 8), canvas_size=32))


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    """Two folds of a model."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    files = [folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)]
    for file in (*files, folder / "plans.json", tmp_path / "adapter_final.safetensors"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))
    return files


def every_source(checkpoints: list[Path]) -> dict[str, Provenance]:
    adapter = checkpoints[0].parents[2] / "adapter_final.safetensors"
    return {
        "sam": Provenance.of_sam([adapter], SETTINGS, fold="all", round_index=2),
        "model": Provenance.of_model(checkpoints, SETTINGS, fold=0, trainer="nnUNetTrainer"),
        "images": Provenance.of_images(fold="all"),
        "retraining": Provenance.of_retraining(
            checkpoints[0], SETTINGS, fold=0, round_index=1, trainer="nnUNetTrainerSFR_MT"
        ),
        "nnUNetTrainerSFR_ST": Provenance.of_training(
            "nnUNetTrainerSFR_ST", SETTINGS, fold=0, round_index=1, epoch=5, weights_sha256="a" * 64
        ),
    }


def test_every_source_comes_back_from_its_manifest(checkpoints: list[Path]) -> None:
    for source, made_by in every_source(checkpoints).items():
        content = made_by.to_json()
        again = Provenance.from_json(content)
        assert again.source == source
        assert again.to_json() == content
        assert again.fingerprint == made_by.fingerprint
        assert again.differences(made_by) == []
        assert again.others == {}


def test_the_entries_are_those_of_version_0_1(checkpoints: list[Path]) -> None:
    """Selections keep them too, so their names cannot change."""
    made_by = every_source(checkpoints)
    sections = SETTINGS.to_dict()
    content = made_by["sam"].to_json()
    assert {"source", "fold", "round", "adapter", "adapter_sha256", "stitching", "sam", "pseudo_labels"} == set(content)
    assert content["stitching"]["patch_size"] == list(sections["stitching"]["patch_size"])
    hashes = {file.parent.name: ["checkpoint_final.pth", file_hash(file)] for file in checkpoints}
    assert made_by["model"].to_json()["checkpoints"] == hashes
    assert made_by["retraining"].to_json()["model"] == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert made_by["images"].to_json() == {"source": "images", "fold": "all", "round": 0}


def test_entries_of_other_versions_are_kept_and_count() -> None:
    content = {"source": "sam", "round": 0, "adapter": None, "planes": ["axial", "coronal"]}
    made_by = Provenance.from_json(content)
    assert made_by.others == {"adapter": None, "planes": ["axial", "coronal"]}
    assert made_by.to_json() == content
    assert made_by.differences(Provenance(source="sam", round_index=0)) == ["planes"]


def test_differences_are_named(checkpoints: list[Path]) -> None:
    sam = every_source(checkpoints)["sam"]
    other = replace(sam, adapter_sha256="b" * 64, round_index=3)
    assert sam.differences(other) == ["adapter_sha256", "round"]
    assert sam.differences(Provenance.of_images(fold="all")) == ["source"], "of which the others are a consequence"


def test_where_the_weights_lie_is_no_difference(checkpoints: list[Path]) -> None:
    sam = every_source(checkpoints)["sam"]
    moved = replace(sam, settings={**sam.settings, "sam": {**sam.settings["sam"], "checkpoint": "elsewhere/sam.pth"}})
    assert moved.to_json() != sam.to_json()
    assert sam.differences(moved) == []


def test_settings_that_an_earlier_version_did_not_know_are_no_difference(checkpoints: list[Path]) -> None:
    today = every_source(checkpoints)["sam"].to_json()
    assert {"window", "adaptation_settings"} <= set(today["sam"])
    assert {"scale", "slice_axes"} <= set(today["stitching"])
    earlier = json.loads(json.dumps(today))
    for section, names in {"sam": ("window", "adaptation_settings"), "stitching": ("scale", "slice_axes")}.items():
        for name in names:
            del earlier[section][name]
    earlier["sam"]["lora_rank"] = 4  # of version 0.1, which kept it whatever the adaptation
    assert Provenance.from_json(earlier).differences(Provenance.from_json(today)) == []
    earlier["stitching"]["slice_axis"] = today["stitching"]["slice_axes"][0]  # before there were several
    assert Provenance.from_json(earlier).differences(Provenance.from_json(today)) == []
    today["stitching"]["scale"] = [2.0, 1.0, 1.0]
    assert Provenance.from_json(earlier).differences(Provenance.from_json(today)) == ["stitching"]
    earlier["sam"]["model"] = 5  # no settings of any version
    assert Provenance.from_json(earlier).differences(Provenance.from_json(today)) == ["sam", "stitching"]


def test_people_read_who_it_was_and_how_to_repeat_it(checkpoints: list[Path]) -> None:
    told = {source: (made_by.label, made_by.refill) for source, made_by in every_source(checkpoints).items()}
    assert told == {
        "sam": ("SAM", "sfr_finetune --round 2 --overwrite, then sfr_pseudolabel --round 2 --overwrite"),
        "model": ("trained model", "sfr_pseudolabel --from-model <model> --overwrite"),
        "images": ("label maps", "sfr_pseudolabel --from-images <folder> --overwrite"),
        "retraining": ("re-trained model", "sfr_pseudolabel --round 1 -tr nnUNetTrainerSFR_MT --overwrite"),
        "nnUNetTrainerSFR_ST": ("nnUNetTrainerSFR_ST", "nnUNetv2_train -tr nnUNetTrainerSFR_ST"),
    }
