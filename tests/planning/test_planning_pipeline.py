"""The command from end to end: both plans, what is kept on the second call, and its errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.entry_points.plan_and_preprocess import main
from nnunet_sfr.planner_names import PLANS_OF_PLANNERS
from nnunet_sfr.planning import fingerprint, pipeline
from nnunet_sfr.planning.planners import ExperimentPlannerCPU, default_plans_name, find_planner
from tests.tiny_dataset import NAME, make_raw_dataset
from tests.tiny_project import nnunet_folders

PLANS = "nnUNetPlansCPU"
PLAN_ONLY = ["-d", "42", "-pl", "ExperimentPlannerCPU", "--no_pp", "-npfp", "1"]
TINY = [*PLAN_ONLY, "-sam", "vit_tiny"]


def edit(file: Path, section: str, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"][section].update(values)
    file.write_text(json.dumps(content))


def test_plan_for_a_cpu(preprocessed: Path) -> None:
    assert main(TINY) == 0
    dataset = open_dataset(42, "3d_fullres", PLANS)
    architecture = dataset.configuration_manager.network_arch_init_kwargs
    assert architecture["features_per_stage"] == [16, 32, 64]
    assert dataset.configuration_manager.patch_size == [20, 24, 24]
    assert dataset.configuration_manager.batch_size == 2
    # cases of 18 x 22 x 20 and 19 x 23 x 21: all slices of the largest on the smallest canvas that holds them
    assert dataset.settings.stitching.patch_size == (19, 23, 21)
    assert dataset.settings.stitching.canvas_size == 128
    assert (dataset.settings.sam.model, dataset.settings.sam.adaptation) == ("vit_tiny", "full")
    assert dataset.settings.fine_tuning.iterations == 2000
    assert not dataset.paths.labelled.exists()


def test_unlabelled_images_change_the_target_spacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One labelled case at 1 mm among five unlabelled ones at 2 mm: the plan follows the many."""
    monkeypatch.setattr(fingerprint, "FOREGROUND_SAMPLES", 6000)
    raw = tmp_path / "nnUNet_raw"
    with nnunet_folders(tmp_path):
        make_raw_dataset(raw, labelled=1, unlabelled=0)
        make_raw_dataset(tmp_path / "coarse", unlabelled=5, spacing=(2.0, 2.0, 2.0))
        shutil.copytree(tmp_path / "coarse" / NAME / "imagesUl", raw / NAME / "imagesUl")
        assert main([*TINY, "-overwrite_plans_name", "Own"]) == 0
        assert open_dataset(42, "3d_fullres", "Own").configuration_manager.spacing == [2.0, 2.0, 2.0]


def test_a_large_sam_gets_the_papers_defaults(preprocessed: Path) -> None:
    assert main([*PLAN_ONLY, "-sam", "vit_b", "-c", "3d_fullres", "2d"]) == 0
    for configuration in ("3d_fullres", "2d"):
        settings = open_dataset(42, configuration, PLANS).settings
        assert (settings.sam.model, settings.sam.adaptation) == ("vit_b", "lora")
        assert settings.sam.adaptation_settings == {"rank": 4}
        assert settings.stitching.canvas_size == 1024
        assert settings.stitching.patch_size == (19, 23, 21)
        assert settings.fine_tuning.iterations == 6000


def test_an_edited_sfr_plan_is_kept_while_it_fits(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = preprocessed / f"{PLANS}_SFRPlans.json"

    def kept() -> bool:
        return open_dataset(42, "3d_fullres", PLANS).settings.fine_tuning.iterations == 777

    main(TINY)
    edit(file, "fine_tuning", iterations=777)
    edit(file, "stitching", patch_size=[9, 20, 20])
    capsys.readouterr()
    assert main(PLAN_ONLY) == 0
    assert kept()
    assert "patches of 9 x 20 x 20 on a canvas of 128; kept from" in capsys.readouterr().out

    # another SAM is an explicit wish
    assert main([*PLAN_ONLY, "-sam", "vit_b"]) == 0
    assert not kept()
    assert "made again for -sam vit_b (it had vit_tiny)" in capsys.readouterr().out
    # without the flag, that choice stays too
    assert main(PLAN_ONLY) == 0
    assert open_dataset(42, "3d_fullres", PLANS).settings.sam.model == "vit_b"

    edit(file, "fine_tuning", iterations=777)
    assert main([*PLAN_ONLY, "--overwrite_sfr_plan"]) == 0
    assert not kept()

    edit(file, "fine_tuning", iterations=777)
    capsys.readouterr()
    assert main([*PLAN_ONLY, "-overwrite_target_spacing", "1.25", "1.25", "1.25"]) == 0
    assert kept(), "what does not depend on the grid is carried over"
    printed = capsys.readouterr().out
    assert "the nnU-Net plan changed (spacing [1.0, 1.0, 1.0] is now [1.25, 1.25, 1.25])" in printed
    # 19 x 23 x 21 voxels of 1 mm
    assert open_dataset(42, "3d_fullres", PLANS).settings.stitching.patch_size == (15, 18, 17)


def test_another_sam_keeps_the_settings_that_are_not_its_own(preprocessed: Path) -> None:
    file = preprocessed / f"{PLANS}_SFRPlans.json"
    main(TINY)
    edit(file, "fine_tuning", iterations=777)
    edit(file, "pseudo_labels", tile_step_size=0.75)
    edit(file, "retraining", pseudo_label_weight=0.25)
    edit(file, "rounds", model_share=0.3)
    edit(file, "crosscheck", nnunet_iterations=77)
    assert main([*PLAN_ONLY, "-sam", "vit_b"]) == 0
    settings = open_dataset(42, "3d_fullres", PLANS).settings
    assert (settings.sam.model, settings.sam.adaptation) == ("vit_b", "lora")
    assert (settings.stitching.canvas_size, settings.fine_tuning.iterations) == (1024, 6000)
    assert settings.pseudo_labels.tile_step_size == 0.75
    assert settings.retraining.pseudo_label_weight == 0.25
    assert settings.rounds.model_share == 0.3
    assert settings.crosscheck.nnunet_iterations == 77
    assert main([*PLAN_ONLY, "-sam", "vit_tiny", "--overwrite_sfr_plan"]) == 0
    assert open_dataset(42, "3d_fullres", PLANS).settings.rounds.model_share == 0


# --- nnU-Net's plan ---


def batch_size(preprocessed: Path, value: int | None = None) -> int:
    """Of 3d_fullres in nnU-Net's plan; changed by hand if a value is given."""
    file = preprocessed / f"{PLANS}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    configuration = content["configurations"]["3d_fullres"]
    if value is not None:
        configuration["batch_size"] = value
        file.write_text(json.dumps(content))
    return int(configuration["batch_size"])


FINER = ["-overwrite_target_spacing", "0.8", "0.8", "0.8"]


@pytest.mark.parametrize(
    "options", [[], FINER, ["-sam", "vit_tiny"], ["-sam", "vit_b"], ["--overwrite_sfr_plan"], ["-c", "2d"]]
)
def test_nnunets_plan_is_kept_with_its_edits_and_its_grid(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main([*TINY, *FINER]) == 0
    batch_size(preprocessed, 3)
    file = preprocessed / f"{PLANS}.json"
    before = file.read_text(encoding="utf-8")
    assert main([*PLAN_ONLY, *options]) == 0
    assert file.read_text(encoding="utf-8") == before
    assert f"nnU-Net's plan: kept from {file}; --clean makes it again" in capsys.readouterr().out


def test_a_plan_that_is_named_keeps_its_planner(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name alone is enough, also of plans that have another name than the planner's own."""
    for name in (PLANS, "Own"):
        assert main([*TINY, *FINER, "-p", name]) == 0
        file = preprocessed / f"{name}.json"
        before = file.read_text(encoding="utf-8")
        assert main(["-d", "42", "-p", name, "--no_pp", "-npfp", "1", "-adaptation", "full"]) == 0
        assert file.read_text(encoding="utf-8") == before
    file.write_text(before.replace("ExperimentPlannerCPU", "AnotherPlanner"))
    assert main(["-d", "42", "-p", "Own", "--no_pp", "-npfp", "1"]) == 1
    said = f"{file}: made by AnotherPlanner, which is not installed here; choose a planner with -pl"
    assert said in capsys.readouterr().err


def test_a_new_plan_of_a_planners_own_name_is_made_by_it(preprocessed: Path) -> None:
    assert main(["-d", "42", "-p", PLANS, "--no_pp", "-npfp", "1", "-sam", "vit_tiny"]) == 0
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    assert plans["experiment_planner_used"] == "ExperimentPlannerCPU"


@pytest.mark.parametrize(
    "options",
    [["--clean"], ["-gpu_memory_target", "8"], FINER, ["-pl", "ExperimentPlanner", "-p", PLANS]],
)
def test_nnunets_plan_is_made_again_where_that_is_asked_for(preprocessed: Path, options: list[str]) -> None:
    assert main(TINY) == 0
    batch_size(preprocessed, 3)
    assert main([*PLAN_ONLY, *options]) == 0
    assert batch_size(preprocessed) == 2


def test_a_new_image_makes_every_plan_again_though_the_first_attempt_fails(preprocessed: Path) -> None:
    for plans in (PLANS, "SecondPlans"):
        assert main([*TINY, "-p", plans]) == 0
    batch_size(preprocessed, 3)
    images = preprocessed.parents[1] / "nnUNet_raw" / NAME / "imagesUl"
    shutil.copy(images / "unlabelled_00_0000.nii.gz", images / "unlabelled_07_0000.nii.gz")
    assert main([*PLAN_ONLY, "-gpu_memory_target", "1e-9"]) == 1, "after the fingerprint"
    assert main([*PLAN_ONLY, "-p", "SecondPlans"]) == 0
    assert batch_size(preprocessed) == 3
    assert main(PLAN_ONLY) == 0
    assert batch_size(preprocessed) == 2
    batch_size(preprocessed, 3)
    assert main([*PLAN_ONLY, "-p", "SecondPlans", "--clean"]) == 0
    assert main(PLAN_ONLY) == 0
    assert batch_size(preprocessed) == 3, "no image has changed"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("foreground_intensity_properties_per_channel", {"0": {"mean": 1.0}}),
        ("original_median_spacing_after_transp", [2.0, 1.0, 1.0]),
        ("original_median_shape_after_transp", [17, 22, 20]),
    ],
)
def test_a_plan_from_other_raw_data_is_made_again_whatever_the_fingerprint_says(
    preprocessed: Path, key: str, value: Any
) -> None:
    """Earlier versions made the fingerprint again and did not say which plans were made from the one before."""
    assert main(TINY) == 0
    batch_size(preprocessed, 3)
    file = preprocessed / f"{PLANS}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    planned = content[key]
    file.write_text(json.dumps({**content, key: value}))
    assert main(PLAN_ONLY) == 0
    assert json.loads(file.read_text(encoding="utf-8"))[key] == planned
    assert batch_size(preprocessed) == 2


def test_a_split_that_is_given_later_is_taken_beside_a_plan_that_is_kept(preprocessed: Path) -> None:
    assert main(TINY) == 0
    split = [{"train": ["train_00"], "val": ["train_01"]}]
    (preprocessed.parents[1] / "nnUNet_raw" / NAME / "splits_final.json").write_text(json.dumps(split))
    assert main(PLAN_ONLY) == 0
    assert json.loads((preprocessed / "splits_final.json").read_text(encoding="utf-8")) == split


def test_folds_that_are_changed_later_are_refused(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TINY) == 0
    raw, planned = (
        preprocessed.parents[1] / "nnUNet_raw" / NAME / "splits_final.json",
        preprocessed / "splits_final.json",
    )

    def planning(given: list[str], there: list[str], *options: str) -> int:
        raw.write_text(json.dumps([{"train": given, "val": ["c"]}]))
        planned.write_text(json.dumps([{"train": there, "val": ["c"]}, {"train": ["c"], "val": ["a"]}]))
        return int(main([*PLAN_ONLY, *options]))

    for options in ((), ("--clean",)):
        assert planning(["a", "b"], ["b", "a"], *options) == 0
        assert planning(["a"], ["b"], *options) == 1
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"error: {raw}: its fold 0 is another one than in {planned}; copy the file with the right folds over the "
            "other one"
        )
    assert planning(["a"], ["a", "added"]) == 0, "as sfr_add_labels leaves them"
    assert planning(["a"], ["a", "added"], "--clean") == 1, "nnU-Net's planner wants the same"
    assert planning(["a", "added"], ["a"]) == 1


def test_dataset_json_beside_a_plan_that_is_kept_is_that_of_the_raw_data(preprocessed: Path) -> None:
    assert main(TINY) == 0
    raw, beside = preprocessed.parents[1] / "nnUNet_raw" / NAME / "dataset.json", preprocessed / "dataset.json"
    beside.write_text(json.dumps({**json.loads(raw.read_text(encoding="utf-8")), "labels": {"background": 0}}))
    assert main(PLAN_ONLY) == 0
    assert beside.read_bytes() == raw.read_bytes()


def test_two_plans_of_one_data_set_live_side_by_side(preprocessed: Path) -> None:
    assert main(TINY) == 0
    assert main([*TINY, "-p", "SecondPlans"]) == 0
    assert open_dataset(42, "3d_fullres", PLANS).paths.sfr_plans_file.is_file()
    assert open_dataset(42, "3d_fullres", "SecondPlans").settings.stitching.canvas_size == 128


def test_an_invalid_edit_is_an_error_and_not_overwritten(
    preprocessed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = preprocessed / f"{PLANS}_SFRPlans.json"
    main(TINY)
    edit(file, "stitching", patch_size=[1000, 20, 20])
    edited = file.read_text(encoding="utf-8")
    assert main(PLAN_ONLY) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {file}: configuration 3d_fullres: stitching: a canvas of 128 pixels holds")
    assert file.read_text(encoding="utf-8") == edited


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-pl", "NoPlanner"], "-pl NoPlanner: no such planner"),
        (["-pl", "DatasetFingerprintExtractor"], "no such planner"),
        (["-c", "3d_cascade_fullres"], "-c 3d_cascade_fullres: is the second stage of a cascade"),
        (["-c", "2d", "3d_nope"], "-c 3d_nope: no such configuration; choose from 2d, 3d_fullres, 3d_lowres"),
        (["-d", "7"], "no data set 7"),
    ],
)
def test_mistakes_in_the_call_change_nothing(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*TINY, *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not preprocessed.exists()


@pytest.mark.parametrize("options", [["-overwrite_target_spacing", "500", "1", "1"], ["-gpu_memory_target", "1e-9"]])
def test_options_that_leave_no_voxels_change_no_plan(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """nnU-Net would write a plan with patches of 0 voxels, or divide by them."""
    assert main([*PLAN_ONLY, *options]) == 1
    error = capsys.readouterr().err
    assert "less than one voxel" in error or "error: -gpu_memory_target 1e-09: " in error
    assert not list(preprocessed.glob("*Plans*.json"))


@pytest.mark.parametrize("configuration", ["3d_lowres"])
def test_a_configuration_that_the_plan_has_not(
    preprocessed: Path, capsys: pytest.CaptureFixture[str], configuration: str
) -> None:
    assert main([*TINY, "-c", configuration]) == 1
    assert f"has no configuration {configuration}; choose -c from" in capsys.readouterr().err
    assert not list(preprocessed.glob("*Plans*.json"))
    assert main(TINY) == 0
    before = (preprocessed / f"{PLANS}.json").read_text(encoding="utf-8")
    for options in ([], FINER):
        assert main([*TINY, "-c", configuration, *options]) == 1
        assert (preprocessed / f"{PLANS}.json").read_text(encoding="utf-8") == before


def test_a_configuration_that_was_removed_by_hand_comes_back_with_clean(
    preprocessed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(TINY) == 0
    file = preprocessed / f"{PLANS}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["configurations"]["2d"]
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert main([*PLAN_ONLY, "-c", "2d"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {file}: has no configuration 2d; choose -c from 3d_fullres; if it was removed by hand, --clean makes "
        "the plan again"
    )
    assert main([*PLAN_ONLY, "-c", "2d", "--clean"]) == 0


def test_nnunets_integrity_check_can_be_asked_for(preprocessed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = AssertionError("Some images have errors")
    with mock.patch.object(pipeline, "verify_dataset_integrity", side_effect=found) as check:
        assert main([*TINY, "--verify_dataset_integrity"]) == 1
    assert check.call_args.args[0] == str(preprocessed.parents[1] / "nnUNet_raw" / NAME)
    assert "nnU-Net's verify_dataset_integrity found: Some images have errors" in capsys.readouterr().err


def test_find_planner_knows_nnunets_and_ours() -> None:
    assert find_planner("ExperimentPlannerCPU") is ExperimentPlannerCPU
    assert find_planner("nnUNetPlannerResEncM").__module__.startswith("nnunetv2.")


@pytest.mark.parametrize(("planner", "name"), list(PLANS_OF_PLANNERS.items()))
def test_plans_are_found_before_a_planner_has_run(planner: str, name: str) -> None:
    assert default_plans_name(find_planner(planner)) == name


def test_a_planner_that_hands_its_options_on_has_the_name_of_the_one_above() -> None:
    class Own(ExperimentPlannerCPU):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)

    assert default_plans_name(Own) == PLANS


def test_nnunet_reads_the_plan_of_our_planner(preprocessed: Path) -> None:
    main(TINY)
    manager = PlansManager(str(preprocessed / f"{PLANS}.json"))
    assert manager.experiment_planner_name == "ExperimentPlannerCPU"
    assert manager.get_configuration("3d_fullres").data_identifier == f"{PLANS}_3d_fullres"


def test_patches_of_one_size(preprocessed: Path) -> None:
    """The paper's uniform variant, whatever the volumes are; the network fits the patch."""
    main(["-d", "42", "-pl", "ExperimentPlanner96", "--no_pp", "-npfp", "1", "-sam", "vit_tiny"])
    manager = PlansManager(str(preprocessed / "nnUNetPlans96.json"))
    configuration = manager.get_configuration("3d_fullres")
    assert (list(configuration.patch_size), configuration.batch_size) == ([96, 96, 96], 2)
    architecture = configuration.network_arch_init_kwargs
    total_stride = np.prod(architecture["strides"], axis=0)
    assert not np.any(96 % total_stride)
    lengths = {
        len(architecture[name]) for name in ("strides", "kernel_sizes", "features_per_stage", "n_conv_per_stage")
    }
    assert lengths == {architecture["n_stages"]}
    assert list(manager.get_configuration("2d").patch_size) != [96, 96]
