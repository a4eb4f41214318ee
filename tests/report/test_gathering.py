"""What the report shows of a project with a round of SFR+, worked out by hand, and where much is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch

from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.data.store_files import record_file
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import FINAL_ADAPTER, FINAL_CHECKPOINT, LATEST_CHECKPOINT
from nnunet_sfr.report.case_drawing import DrawingTask, Measurements, draw_and_measure
from nnunet_sfr.report.contents import Alert, Contents, ReportCase
from nnunet_sfr.report.gathering import ReportOptions, gather
from nnunet_sfr.report.label_sources import best_measure
from nnunet_sfr.report.making import make_report
from nnunet_sfr.report.volumes import grid_spacing
from nnunet_sfr.sam_stage.model import build_stitched_sam, save_adapter
from nnunet_sfr.sam_stage.recipe import fine_tuning_recipe
from nnunet_sfr.sam_stage.rounds import open_round
from nnunet_sfr.selection import make_rule, select
from tests.report.reported_project import CUBOID, FIRST, NOTHING, SECOND, SHIFTED, fill, fill_model, fill_sam, sam_made
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, change_settings

BOTH = {FIRST: CUBOID, SECOND: CUBOID}
DISPUTED = {FIRST: SHIFTED, SECOND: CUBOID}


@pytest.fixture
def bare(project: SFRDataset) -> SFRDataset:
    """Without pseudo-labels."""
    shutil.rmtree(project.paths.pseudo_labels("all"))
    return project


@pytest.fixture
def with_round(bare: SFRDataset) -> SFRDataset:
    """SAM's labels of round 0, and the model's, of which the first case is high."""
    fill_sam(bare, BOTH)
    fill_model(bare, DISPUTED)
    select(bare, "all", 1, make_rule(bare))
    return bare


@pytest.fixture
def drawn() -> Iterator[list[DrawingTask]]:
    """What is drawn or measured while the test runs."""
    found: list[DrawingTask] = []

    def note(task: DrawingTask) -> Measurements:
        found.append(task)
        return draw_and_measure(task)

    with mock.patch("nnunet_sfr.report.picture_cache.draw_and_measure", note):
        yield found


def contents_of(dataset: SFRDataset, **options: Any) -> Contents:
    return gather(dataset, "all", dataset.paths.report("all"), ReportOptions(**options)).contents


def by_name(contents: Contents) -> dict[str, ReportCase]:
    return {case.name: case for case in contents.cases}


def test_a_round_in_numbers(with_round: SFRDataset) -> None:
    contents = contents_of(with_round)
    assert [(source.key, source.measure, source.threshold) for source in contents.sources] == [
        ("round_0", "estimated_dice", None),
        ("round_1_model", "joint_agreement", pytest.approx(0.9**2 * 2 / 3)),
    ]
    assert [source.name for source in contents.sources] == [
        "SAM, round 0",
        "re-trained model (nnUNetTrainerSFR_MT), before round 1",
    ]
    first, second = contents.cases
    assert (first.results["round_0"].confidence, second.results["round_0"].confidence) == (0.25, 0.8)
    assert first.results["round_1_model"].confidence == pytest.approx(0.54)
    assert second.results["round_1_model"].confidence == pytest.approx(0.18)
    assert (first.sides, second.sides) == ({"1": "high"}, {"1": "low"})
    voxel = 1.0
    for step in with_round.configuration_manager.spacing:
        voxel *= float(step)
    assert first.results["round_0"].volumes_ml == pytest.approx({"1": 240 * voxel / 1000})
    assert first.results["round_1_model"].volumes_ml == pytest.approx({"1": 120 * voxel / 1000})
    assert first.disagreement == pytest.approx(1 / 3)
    assert second.disagreement == 0
    # ranks: the first has the higher confidence (0) but is disputed (1), the second the reverse; of equals the first
    assert [case.annotation_rank for case in contents.cases] == [1, 2]
    assert first.annotation_reasons == ["SAM and the model disagree: 0.33"]
    assert second.annotation_reasons == ["low confidence 0.18 (re-trained model)"]
    assert [(one.value, one.name) for one in contents.classes] == [(1, "class_1")]


def test_rounds_side_by_side(with_round: SFRDataset) -> None:
    fill_sam(with_round, DISPUTED, round_index=1)
    rounds = contents_of(with_round).rounds
    assert rounds is not None
    assert list(rounds.columns) == ["", "round 0", "round 1"]
    cells = {row[0]: list(row[1:]) for row in rounds.rows}
    assert cells["trainer whose model labelled the pool"] == ["-", "nnUNetTrainerSFR_MT"]
    assert cells["model: mean / median confidence"] == ["-", "0.360 / 0.360"]
    assert cells["high / low"] == ["-", "1 / 1"]
    assert cells["threshold"] == ["-", "0.540 (joint_agreement of model)"]
    assert cells["maker of the new labels"] == ["SAM, adapter abcdef01"] * 2
    assert cells["new labels: empty label maps"] == ["0 of 2", "0 of 2"]


def test_the_latest_labels_come_last_and_say_where_to_cut(with_round: SFRDataset, drawn: list[DrawingTask]) -> None:
    fill_sam(with_round, {FIRST: NOTHING, SECOND: SHIFTED}, round_index=1)
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources] == ["round_0", "round_1_model", "round_1"]
    # SAM found nothing in the first this time: the labels before say where, and to find nothing is to disagree
    assert [task.centre_of for task in drawn] == ["round_1_model", "round_1"]
    first = by_name(contents)[FIRST]
    assert first.disagreement == 1
    assert set(first.results["round_1"].volumes_ml.values()) == {0}


def test_pictures_and_mosaics_are_there(with_round: SFRDataset) -> None:
    contents = contents_of(with_round)
    folder = with_round.paths.report("all")
    for case in contents.cases:
        assert list(case.images) == ["percentiles"]
        for name in (*case.images.values(), case.results["round_0"].labels, case.results["round_1_model"].labels):
            assert name is not None
            assert (folder / name).is_file()
        # two cases are the lowest and the highest; the model is no SAM
        assert case.results["round_0"].mosaic is not None
        assert (folder / case.results["round_0"].mosaic.image).is_file()
        assert (folder / case.results["round_0"].mosaic.labels).is_file()
        assert case.results["round_1_model"].mosaic is None


def test_fewer_pictures(with_round: SFRDataset) -> None:
    fill_sam(with_round, DISPUTED, round_index=1)
    cases = by_name(contents_of(with_round, max_pictures=1))
    assert cases[FIRST].images == {}
    assert cases[FIRST].results["round_0"].labels is None
    assert cases[SECOND].images  # the model's lower confidence
    fill(
        with_round,
        with_round.paths.pseudo_labels("all", trainer="nnUNetTrainerSFR_ST", round_index=1),
        {"source": "nnUNetTrainerSFR_ST"},
        BOTH,
    )
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources][1] == "nnUNetTrainerSFR_ST_round_1"
    assert by_name(contents)[FIRST].results["nnUNetTrainerSFR_ST_round_1"].labels is None
    everything = by_name(contents_of(with_round, all_sources=True))
    assert everything[FIRST].results["nnUNetTrainerSFR_ST_round_1"].labels is not None


def test_a_second_run_draws_only_what_changed(with_round: SFRDataset, drawn: list[DrawingTask]) -> None:
    folder = with_round.paths.report("all")
    before = by_name(contents_of(with_round))
    assert [task.case for task in drawn] == [FIRST, SECOND]
    drawn.clear()
    assert by_name(contents_of(with_round)) == before
    assert drawn == []
    # new labels of one case: that case alone, all its pictures as its centre moved; the others' names stay
    record = with_round.paths.model_pseudo_labels("all", 1) / f"{FIRST}.json"
    record.write_text(json.dumps({**json.loads(record.read_text(encoding="utf-8")), "flip_agreement": 0.95}))
    (folder / "pictures" / "mine.webp").write_bytes(b"somebody else's")
    make_report(with_round, "all", folder, ReportOptions())
    assert [task.case for task in drawn] == [FIRST]
    after = by_name(contents_of(with_round))
    assert after[SECOND] == before[SECOND]
    assert after[FIRST].images != before[FIRST].images
    # the page shows no other pictures, so they are gone
    assert not (folder / before[FIRST].images["percentiles"]).exists()
    assert (folder / after[FIRST].images["percentiles"]).is_file()
    assert (folder / "pictures" / "mine.webp").is_file()


def test_cases_whose_records_are_renamed(bare: SFRDataset, drawn: list[DrawingTask]) -> None:
    """A case called manifest has its record in another file than its name says."""
    names = {FIRST: "manifest", SECOND: "manifest.record"}
    for folder in (bare.paths.unlabelled, bare.paths.raw_unlabelled):
        for case, name in names.items():
            for file in folder.glob(f"{case}*"):
                file.rename(file.with_name(file.name.replace(case, name)))
    fill(bare, bare.paths.pseudo_labels("all"), sam_made(bare, 0), {name: CUBOID for name in names.values()})
    before = by_name(contents_of(bare))
    assert [task.case for task in drawn] == ["manifest", "manifest.record"]
    drawn.clear()
    record = record_file(bare.paths.pseudo_labels("all"), "manifest")
    record.write_text(json.dumps({**json.loads(record.read_text(encoding="utf-8")), "flip_agreement": 0.95}))
    after = by_name(contents_of(bare))
    assert [task.case for task in drawn] == ["manifest"]
    assert after["manifest"].images != before["manifest"].images


def test_a_stopped_run_goes_on(with_round: SFRDataset) -> None:
    folder = with_round.paths.report("all")

    def die(task: DrawingTask) -> Measurements:
        if task.case == SECOND:
            raise KeyboardInterrupt
        return draw_and_measure(task)

    with mock.patch("nnunet_sfr.report.picture_cache.draw_and_measure", die), pytest.raises(KeyboardInterrupt):
        make_report(with_round, "all", folder, ReportOptions())
    assert not (folder / "index.html").exists()
    page, _ = make_report(with_round, "all", folder, ReportOptions())
    assert page.is_file()


def test_a_case_that_sam_has_not_labelled(bare: SFRDataset) -> None:
    fill_sam(bare, {SECOND: CUBOID})
    fill_model(bare, DISPUTED)
    contents = contents_of(bare)
    cases = by_name(contents)
    assert list(cases[FIRST].results) == ["round_1_model"]
    assert cases[FIRST].disagreement is None
    assert cases[SECOND].disagreement == 0
    assert any(f"round_0: no label for {FIRST} (1 of 2 cases are missing)" in text for text in contents.missing)
    assert any("no choice of high and low cases; run sfr_select -d 42" in text for text in contents.missing)


def test_labels_of_an_image_that_changed_are_left_out(with_round: SFRDataset) -> None:
    record = with_round.paths.pseudo_labels("all") / f"{FIRST}.json"
    record.write_text(json.dumps({**json.loads(record.read_text(encoding="utf-8")), "input": "another image"}))
    contents = contents_of(with_round)
    assert list(by_name(contents)[FIRST].results) == ["round_1_model"]
    assert any(f"the image of {FIRST} changed since it was labelled" in text for text in contents.missing)


def test_what_is_missing_is_named_with_its_command(bare: SFRDataset) -> None:
    with pytest.raises(UserError, match="no pseudo-labels to report on; run sfr_pseudolabel -d 42 -c 3d_fullres"):
        contents_of(bare)
    fill_sam(bare, BOTH)
    contents = contents_of(bare)
    assert contents.trainings == []
    assert contents.rounds is None
    assert all(case.disagreement is None for case in contents.cases)
    wanted = (
        "run sfr_finetune -d 42",
        "run nnUNetv2_train 42 3d_fullres all -tr nnUNetTrainerSFR_MT -p nnUNetPlansCPU",
        "--round 1 -tr <trainer>",
    )
    for command in wanted:
        assert sum(command in text for text in contents.missing) == 1, command


def test_the_only_complete_model_is_named_in_the_command(bare: SFRDataset) -> None:
    fill_sam(bare, BOTH)

    def save(trainer: str, checkpoint: str) -> None:
        folder = bare.paths.training(trainer, "all")
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"logging": {"train_losses": [0.5]}}, folder / checkpoint)

    def named() -> list[str]:
        return [text.rpartition(" --round 1 -tr ")[2] for text in contents_of(bare).missing if "--round 1 -tr" in text]

    save("nnUNetTrainerSFR_MT", LATEST_CHECKPOINT)
    assert [training.name for training in contents_of(bare).trainings] == ["nnUNetTrainerSFR_MT (not complete)"]
    assert named() == ["<trainer>"]
    save("nnUNetTrainerSFR_MT_2epochs", FINAL_CHECKPOINT)
    assert named() == ["nnUNetTrainerSFR_MT_2epochs"]
    save("nnUNetTrainerSFR_MT", FINAL_CHECKPOINT)
    assert named() == ["<trainer>"], "one of two"


def test_imported_label_maps_have_no_confidence(bare: SFRDataset) -> None:
    fill(bare, bare.paths.pseudo_labels("all"), {"source": "images", "fold": "all", "round": 0}, BOTH)
    contents = contents_of(bare)
    assert contents.sources[0].name == "label maps, round 0"
    assert all(result.confidence is None for case in contents.cases for result in case.results.values())
    assert any("has no confidences" in text for text in contents.missing)
    assert any("there are no labels of SAM" in text for text in contents.missing)


def test_a_store_of_another_plan_is_named_and_left_out(with_round: SFRDataset) -> None:
    manifest = with_round.paths.model_pseudo_labels("all", 1) / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["grid"]["spacing"] = [9.0, 9.0, 9.0]
    manifest.write_text(json.dumps(content))
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources] == ["round_0"]
    assert any("round_1_model" in text and "spacing" in text for text in contents.missing)


def test_a_selection_of_other_labels_does_not_count(with_round: SFRDataset) -> None:
    file = with_round.paths.selection("all", 1)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["trainer"] = "another"
    file.write_text(json.dumps(content))
    contents = contents_of(with_round)
    assert all(not case.sides for case in contents.cases)
    assert any("the model's labels were made again since; run sfr_select -d 42" in text for text in contents.missing)


def test_settings_stand_beside_those_of_planning(with_round: SFRDataset) -> None:
    patch = list(with_round.settings.stitching.patch_size)
    edited = [1, *patch[1:]]
    change_settings(with_round, {"pseudo_labels": {"tile_step_size": 0.7}, "stitching": {"patch_size": edited}})
    changed = open_dataset(NAME, "3d_fullres", PLANS)
    tables = {table.title: {row[0]: tuple(row[1:]) for row in table.rows} for table in contents_of(changed).settings}
    assert set(tables) == {"stitching", "sam", "fine_tuning", "pseudo_labels", "retraining", "rounds", "crosscheck"}
    assert tables["pseudo_labels"]["tile_step_size"] == ("0.7", "0.5")
    assert tables["stitching"]["patch_size"] == (json.dumps(edited), json.dumps(patch))
    assert tables["stitching"]["canvas_size"][0] == tables["stitching"]["canvas_size"][1]
    assert tables["sam"]["model"] == ('"vit_tiny"', '"lite_medsam"')  # an option of planning
    assert tables["sam"]["adaptation"] == ('"full"', '"full"')
    assert tables["fine_tuning"]["iterations"][0] == "4"  # the project's own, for tests
    assert tables["fine_tuning"]["batch_size"][0] == tables["fine_tuning"]["batch_size"][1]


@pytest.mark.parametrize(
    ("planner", "planned"), [("ExperimentPlannerCPU", "few_shot"), ("ExperimentPlanner", "adapter")]
)
def test_what_planning_adapts_depends_on_the_planner(with_round: SFRDataset, planner: str, planned: str) -> None:
    change_settings(with_round, {"sam": {"model": "lite_medsam", "adaptation": "lora", "adaptation_settings": {}}})
    plans = with_round.paths.plans_file
    content = {**json.loads(plans.read_text(encoding="utf-8")), "experiment_planner_used": planner}
    plans.write_text(json.dumps(content), encoding="utf-8")
    tables = {table.title: table for table in contents_of(open_dataset(NAME, "3d_fullres", PLANS)).settings}
    assert ["adaptation", '"lora"', f'"{planned}"'] in tables["sam"].rows


def test_another_version_may_have_planned_otherwise(with_round: SFRDataset) -> None:
    assert contents_of(with_round).settings_mark == "edited"
    file = with_round.paths.sfr_plans_file
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "nnunet_sfr_version": "0.0.9"}))
    assert contents_of(with_round).settings_mark == "edited, or planned by nnunet_sfr 0.0.9"


def test_settings_of_another_adaptation_have_its_defaults(with_round: SFRDataset) -> None:
    sam = {"model": "vit_b", "adaptation": "lora", "adaptation_settings": {"rank": 9}}
    change_settings(with_round, {"sam": sam})
    tables = {table.title: table for table in contents_of(open_dataset(NAME, "3d_fullres", PLANS)).settings}
    assert ["adaptation_settings", '{"rank": 9}', '{"rank": 4}'] in tables["sam"].rows


def test_without_the_fingerprint_settings_are_not_compared(with_round: SFRDataset) -> None:
    (with_round.paths.preprocessed / "dataset_fingerprint.json").unlink()
    (rounds,) = [table for table in contents_of(with_round).settings if table.title == "rounds"]
    assert {row[2] for row in rounds.rows} == {"unknown"}


def test_a_sam_from_before_a_setting_changed_stands_at_the_top(with_round: SFRDataset) -> None:
    file = with_round.paths.sam_stage("all") / FINAL_ADAPTER
    recipe = fine_tuning_recipe(with_round, "all", open_round(with_round, "all", 0))
    save_adapter(build_stitched_sam(with_round), with_round, file, recipe=recipe)
    assert contents_of(with_round).alerts == []
    change_settings(with_round, {"fine_tuning": {"learning_rate": 0.5}})
    [alert] = contents_of(open_dataset(NAME, "3d_fullres", PLANS)).alerts
    assert alert.text.startswith("SAM, round 0: since SAM was fine-tuned, fine_tuning.learning_rate changed; run ")
    assert alert.source == "round_0"


def test_what_nothing_was_found_of_stands_at_the_top(with_round: SFRDataset) -> None:
    assert contents_of(with_round).alerts == []
    fill_sam(with_round, {FIRST: NOTHING, SECOND: SHIFTED}, round_index=1)
    assert contents_of(with_round).alerts == [Alert("SAM, round 1: no foreground in 1 of 2 cases", "round_1", [FIRST])]
    fill_model(with_round, {FIRST: NOTHING, SECOND: NOTHING})
    model = "re-trained model (nnUNetTrainerSFR_MT), before round 1"
    assert [alert.text for alert in contents_of(with_round).alerts] == [
        "SAM, round 1: no foreground in 1 of 2 cases",
        f"{model}: 1 of 1 classes found in none of the 2 cases: class_1",
        f"{model}: no foreground in 2 of 2 cases",
    ]


def test_the_best_measure_that_there_is() -> None:
    assert best_measure([{"flip_agreement": 0.5, "sam_agreement": 0.5}], "agreement") == "agreement"
    assert best_measure([{"flip_agreement": 0.5, "sam_agreement": 0.5}], "plane_agreement") == "joint_agreement"
    assert best_measure([{"flip_agreement": 0.5, "expected_dice": 0.5}], "agreement") == "estimated_dice"
    assert best_measure([{"mean_max_probability": 0.5}], "agreement") == "mean_max_probability"
    assert best_measure([{}], "agreement") == "agreement"
    assert next(iter(MEASURES)) == "joint_agreement"


@pytest.mark.parametrize(("slices", "expected"), [(12, (5.0, 0.7, 0.8)), (1, (1.0, 0.7, 0.8))])
def test_two_dimensional_plans_keep_the_distance_of_slices(slices: int, expected: tuple[float, ...]) -> None:
    dataset = SimpleNamespace(configuration={"spacing": [0.7, 0.8]}, plans={"transpose_forward": [2, 0, 1]})
    properties = {"spacing": [0.9, 0.6, 5.0], "shape_after_cropping_and_before_resampling": (slices, 20, 20)}
    assert grid_spacing(cast(SFRDataset, dataset), properties) == expected
