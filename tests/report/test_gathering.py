"""What the report says of a project with a round of SFR+, worked out by hand, and of projects where much is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from nnunet_sfr.confidence import MEASURES
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.report import gathering
from nnunet_sfr.report.case_views import Look, Measured, look_at
from nnunet_sfr.report.contents import Case, Contents, Training
from nnunet_sfr.report.gathering import Options, gather, grid_spacing
from nnunet_sfr.report.making import make_report
from nnunet_sfr.report.sources import best_measure
from nnunet_sfr.selection import make_rule, select
from tests.report.reported_project import CUBOID, FIRST, NOTHING, SECOND, SHIFTED, fill, fill_model, fill_sam
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
def looked_at() -> Iterator[list[Look]]:
    """What is drawn or measured while the test runs."""
    found: list[Look] = []

    def note(look: Look) -> Measured:
        found.append(look)
        return look_at(look)

    with mock.patch("nnunet_sfr.report.looks.look_at", note):
        yield found


def contents_of(dataset: SFRDataset, **options: Any) -> Contents:
    return gather(dataset, "all", dataset.paths.report("all"), Options(**options)).contents


def by_name(contents: Contents) -> dict[str, Case]:
    return {case.name: case for case in contents.cases}


def test_a_round_in_numbers(with_round: SFRDataset) -> None:
    contents = contents_of(with_round)
    assert [(source.key, source.measure, source.threshold) for source in contents.sources] == [
        ("round_0", "estimated_dice", None),
        ("round_1_model", "agreement", pytest.approx(0.6)),
    ]
    assert [source.name for source in contents.sources] == [
        "SAM, round 0",
        "re-trained model (nnUNetTrainerSFR_MT), before round 1",
    ]
    first, second = contents.cases
    assert (first.views["round_0"].confidence, second.views["round_0"].confidence) == (0.25, 0.8)
    assert first.views["round_1_model"].confidence == pytest.approx(0.6)
    assert second.views["round_1_model"].confidence == pytest.approx(0.3)
    assert (first.sides, second.sides) == ({"1": "high"}, {"1": "low"})
    voxel = 1.0
    for step in with_round.configuration_manager.spacing:
        voxel *= float(step)
    assert first.views["round_0"].volumes_ml == pytest.approx({"1": 240 * voxel / 1000})
    assert first.views["round_1_model"].volumes_ml == pytest.approx({"1": 120 * voxel / 1000})
    assert first.disagreement == pytest.approx(1 / 3)
    assert second.disagreement == 0
    # ranks: the first is surer (0) but disputed (1), the second the reverse; of equals the first
    assert [case.annotation_rank for case in contents.cases] == [1, 2]
    assert first.annotation_reasons == ["SAM and the model disagree: 0.33"]
    assert second.annotation_reasons == ["low confidence 0.30 (re-trained model)"]
    assert [(one.value, one.name) for one in contents.classes] == [(1, "class_1")]


def test_rounds_side_by_side(with_round: SFRDataset) -> None:
    fill_sam(with_round, DISPUTED, round_index=1)
    rounds = contents_of(with_round).rounds
    assert rounds is not None
    assert list(rounds.columns) == ["", "round 0", "round 1"]
    cells = {row[0]: list(row[1:]) for row in rounds.rows}
    assert cells["trainer whose model labelled the pool"] == ["-", "nnUNetTrainerSFR_MT"]
    assert cells["model: mean / median confidence"] == ["-", "0.450 / 0.450"]
    assert cells["high / low"] == ["-", "1 / 1"]
    assert cells["threshold"] == ["-", "0.600 (agreement of model)"]
    assert cells["maker of the new labels"] == ["SAM, adapter abcdef01"] * 2
    assert cells["new labels: empty label maps"] == ["0 of 2", "0 of 2"]


def test_the_latest_labels_come_last_and_say_where_to_cut(with_round: SFRDataset, looked_at: list[Look]) -> None:
    fill_sam(with_round, {FIRST: NOTHING, SECOND: SHIFTED}, round_index=1)
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources] == ["round_0", "round_1_model", "round_1"]
    # SAM found nothing in the first this time: the labels before say where, and to find nothing is to disagree
    assert [look.centre_of for look in looked_at] == ["round_1_model", "round_1"]
    first = by_name(contents)[FIRST]
    assert first.disagreement == 1
    assert set(first.views["round_1"].volumes_ml.values()) == {0}


def test_pictures_and_mosaics_are_there(with_round: SFRDataset) -> None:
    contents = contents_of(with_round)
    folder = with_round.paths.report("all")
    for case in contents.cases:
        for name in (case.plain_picture, case.views["round_0"].picture, case.views["round_1_model"].picture):
            assert name is not None
            assert (folder / name).is_file()
        # two cases are the lowest and the highest; the model is no SAM
        assert case.views["round_0"].mosaic is not None
        assert (folder / case.views["round_0"].mosaic).is_file()
        assert case.views["round_1_model"].mosaic is None


def test_fewer_pictures(with_round: SFRDataset) -> None:
    fill_sam(with_round, DISPUTED, round_index=1)
    cases = by_name(contents_of(with_round, max_pictures=1))
    assert cases[FIRST].plain_picture is None
    assert cases[FIRST].views["round_0"].picture is None
    assert cases[SECOND].plain_picture is not None  # the less sure one of the model's
    fill(
        with_round,
        with_round.paths.pseudo_labels("all", trainer="nnUNetTrainerSFR_ST", round_index=1),
        {"source": "nnUNetTrainerSFR_ST"},
        BOTH,
    )
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources][1] == "nnUNetTrainerSFR_ST_round_1"
    assert by_name(contents)[FIRST].views["nnUNetTrainerSFR_ST_round_1"].picture is None
    everything = by_name(contents_of(with_round, all_sources=True))
    assert everything[FIRST].views["nnUNetTrainerSFR_ST_round_1"].picture is not None


def test_a_second_run_draws_only_what_changed(with_round: SFRDataset, looked_at: list[Look]) -> None:
    folder = with_round.paths.report("all")
    before = by_name(contents_of(with_round))
    assert [look.case for look in looked_at] == [FIRST, SECOND]
    looked_at.clear()
    assert by_name(contents_of(with_round)) == before
    assert looked_at == []
    # new labels of one case: that case alone, all its pictures as its centre moved; the others' names stay
    record = with_round.paths.model_pseudo_labels("all", 1) / f"{FIRST}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "flip_agreement": 0.95}))
    (folder / "pictures" / "mine.webp").write_bytes(b"somebody else's")
    make_report(with_round, "all", folder, Options())
    assert [look.case for look in looked_at] == [FIRST]
    after = by_name(contents_of(with_round))
    assert after[SECOND] == before[SECOND]
    assert after[FIRST].plain_picture != before[FIRST].plain_picture
    # the page shows no other pictures, so they are gone
    assert not (folder / str(before[FIRST].plain_picture)).exists()
    assert (folder / str(after[FIRST].plain_picture)).is_file()
    assert (folder / "pictures" / "mine.webp").is_file()


def test_a_stopped_run_goes_on(with_round: SFRDataset) -> None:
    folder = with_round.paths.report("all")

    def die(look: Look) -> Measured:
        if look.case == SECOND:
            raise KeyboardInterrupt
        return look_at(look)

    with mock.patch("nnunet_sfr.report.looks.look_at", die), pytest.raises(KeyboardInterrupt):
        make_report(with_round, "all", folder, Options())
    assert not (folder / "index.html").exists()
    page, _ = make_report(with_round, "all", folder, Options())
    assert page.is_file()


def test_a_case_that_sam_has_not_labelled(bare: SFRDataset) -> None:
    fill_sam(bare, {SECOND: CUBOID})
    fill_model(bare, DISPUTED)
    contents = contents_of(bare)
    cases = by_name(contents)
    assert list(cases[FIRST].views) == ["round_1_model"]
    assert cases[FIRST].disagreement is None
    assert cases[SECOND].disagreement == 0
    assert any(f"round_0: no label for {FIRST} (1 of 2 cases are missing)" in text for text in contents.missing)
    assert any("no choice of high and low cases; run sfr_select -d 42" in text for text in contents.missing)


def test_labels_of_an_image_that_changed_are_left_out(with_round: SFRDataset) -> None:
    record = with_round.paths.pseudo_labels("all") / f"{FIRST}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "input": "another image"}))
    contents = contents_of(with_round)
    assert list(by_name(contents)[FIRST].views) == ["round_1_model"]
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
        "run nnUNetv2_train 42 3d_fullres all -p nnUNetPlansCPU",
        "--round 1 -tr <trainer>",
    )
    for command in wanted:
        assert sum(command in text for text in contents.missing) == 1, command


def test_the_only_model_is_named_in_the_command(bare: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_sam(bare, BOTH)
    models = [Training(name, "epoch", []) for name in ("SAM, round 0", "nnUNetTrainerSFR_MT_2epochs")]
    monkeypatch.setattr(gathering, "read_trainings", lambda *_: (models, []))
    assert any(text.endswith("--round 1 -tr nnUNetTrainerSFR_MT_2epochs") for text in contents_of(bare).missing)


def test_imported_label_maps_have_no_confidence(bare: SFRDataset) -> None:
    fill(bare, bare.paths.pseudo_labels("all"), {"source": "images", "fold": "all", "round": 0}, BOTH)
    contents = contents_of(bare)
    assert contents.sources[0].name == "label maps, round 0"
    assert all(view.confidence is None for case in contents.cases for view in case.views.values())
    assert any("has no confidences" in text for text in contents.missing)
    assert any("there are no labels of SAM" in text for text in contents.missing)


def test_a_store_of_another_plan_is_named_and_left_out(with_round: SFRDataset) -> None:
    manifest = with_round.paths.model_pseudo_labels("all", 1) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["grid"]["spacing"] = [9.0, 9.0, 9.0]
    manifest.write_text(json.dumps(content))
    contents = contents_of(with_round)
    assert [source.key for source in contents.sources] == ["round_0"]
    assert any("round_1_model" in text and "spacing" in text for text in contents.missing)


def test_a_selection_of_other_labels_does_not_count(with_round: SFRDataset) -> None:
    file = with_round.paths.selection("all", 1)
    content = json.loads(file.read_text())
    content["model"]["trainer"] = "another"
    file.write_text(json.dumps(content))
    contents = contents_of(with_round)
    assert all(not case.sides for case in contents.cases)
    assert any("the model's labels were made anew since; run sfr_select -d 42" in text for text in contents.missing)


def test_settings_stand_beside_their_defaults(with_round: SFRDataset) -> None:
    sam = {"model": "vit_b", "adaptation": "lora", "adaptation_settings": {"rank": 9}}
    change_settings(with_round, {"pseudo_labels": {"tile_step_size": 0.7}, "sam": sam})
    changed = open_dataset(NAME, "3d_fullres", PLANS)
    tables = {table.title: {row[0]: tuple(row[1:]) for row in table.rows} for table in contents_of(changed).settings}
    assert set(tables) == {"stitching", "sam", "fine_tuning", "pseudo_labels", "retraining", "rounds"}
    assert tables["pseudo_labels"]["tile_step_size"] == ("0.7", "0.5")
    assert tables["rounds"]["threshold"] == ("null", "null")
    assert tables["stitching"]["canvas_size"][1] == "derived from the plan"
    assert tables["stitching"]["scale"] == ("[1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0]")
    assert tables["sam"]["adaptation_settings"] == ('{"rank": 9}', '{"rank": 4}')
    assert tables["sam"]["checkpoint"] == ("null", "null")


def test_the_best_measure_that_there_is() -> None:
    assert best_measure([{"flip_agreement": 0.5, "sam_agreement": 0.5}], "agreement") == "agreement"
    assert best_measure([{"flip_agreement": 0.5, "expected_dice": 0.5}], "agreement") == "estimated_dice"
    assert best_measure([{"mean_max_probability": 0.5}], "agreement") == "mean_max_probability"
    assert best_measure([{}], "agreement") == "agreement"
    assert next(iter(MEASURES)) == "agreement"


@pytest.mark.parametrize(("slices", "expected"), [(12, (5.0, 0.7, 0.8)), (1, (1.0, 0.7, 0.8))])
def test_two_dimensional_plans_keep_the_distance_of_slices(slices: int, expected: tuple[float, ...]) -> None:
    dataset = SimpleNamespace(
        configuration_manager=SimpleNamespace(spacing=[0.7, 0.8]),
        plans_manager=SimpleNamespace(transpose_forward=[2, 0, 1]),
    )
    properties = {"spacing": [0.9, 0.6, 5.0], "shape_after_cropping_and_before_resampling": (slices, 20, 20)}
    assert grid_spacing(cast(SFRDataset, dataset), properties) == expected
