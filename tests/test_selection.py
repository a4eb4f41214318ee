"""Who is high and who is low: the rule by hand, the user's word, the warnings, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunet_sfr.confidence_measures import PAPER_MEASURE
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.selection import Rule, Selection, make_rule, read_identifiers, read_selection, select
from nnunet_sfr.selection_report import HIGH_COLOUR, LOW_COLOUR, plot, selection_table, warnings
from tests.later_round import BY_FLIPS, HIGH, LOW, MODEL, fill_model_store, scripted_round
from tests.tiny_project import change_settings

VALUES = {"a": 0.9, "b": 0.7, "c": None, "d": 0.8, "e": 0.1}


def rule(**changes: Any) -> Rule:
    return replace(BY_FLIPS, **changes)


@pytest.mark.parametrize(
    ("share", "least"), [(0.0, math.inf), (0.2, 0.9), (0.4, 0.8), (0.5, 0.8), (0.6, 0.7), (0.8, 0.1), (1.0, 0.1)]
)
def test_a_share_of_the_pool_is_high(share: float, least: float) -> None:
    """Of five cases; the one without a value is never high."""
    assert rule(threshold=None, high_fraction=share).find_threshold(VALUES) == least
    assert rule(threshold=None, high_fraction=share).find_threshold(dict.fromkeys("ab")) == math.inf


def test_a_threshold_wins_over_the_share() -> None:
    assert rule(threshold=0.75, high_fraction=1.0).find_threshold(VALUES) == 0.75


def reopened(project: SFRDataset) -> SFRDataset:
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)


def test_the_plan_speaks_where_the_user_does_not(project: SFRDataset) -> None:
    assert make_rule(project) == Rule("joint_agreement", "model", None, 0.5)
    assert make_rule(project, confidence="paper") == Rule(PAPER_MEASURE, "model", 0.985, 0.5)
    assert make_rule(project, confidence="paper", high_fraction=0.3) == Rule(PAPER_MEASURE, "model", None, 0.3)
    assert make_rule(project, confidence="paper", threshold=0.9).threshold == 0.9
    change_settings(project, {"rounds": {"threshold": 0.7, "confidence_of": "sam", "high_fraction": 0.4}})
    changed = reopened(project)
    assert make_rule(changed) == Rule("joint_agreement", "sam", 0.7, 0.4)
    assert make_rule(changed, confidence_of="model", threshold=0.2) == Rule("joint_agreement", "model", 0.2, 0.4)
    # 0.7 was meant for the agreement
    assert make_rule(changed, confidence="expected_dice") == Rule("expected_dice", "sam", None, 0.4)


def test_the_choice_is_stored_and_read_back(project: SFRDataset) -> None:
    selection = scripted_round(project)
    assert (selection.high, selection.low) == ((HIGH,), (LOW,))
    assert selection.values == {HIGH: 0.9, LOW: 0.1}
    assert selection.model == MODEL.to_json()
    again = read_selection(project.paths.selection("all", 1), [LOW, HIGH])
    assert (again.high, again.low, again.rule) == (selection.high, selection.low, selection.rule)
    assert again.rule["value_of_least_sure_high_case"] == 0.5


def test_the_user_has_the_last_word(project: SFRDataset) -> None:
    fill_model_store(project, {HIGH: 0.9, LOW: None})
    selection = select(project, "all", 1, BY_FLIPS, overrule_high=[LOW], overrule_low=[HIGH])
    assert (selection.high, selection.low) == ((LOW,), (HIGH,))
    assert [line.split() for line in selection_table(selection)] == [
        [HIGH, "0.9000", "low", "(overruled)"],
        [LOW, "-", "high", "(overruled)"],
        ["1", "high,", "1", "low"],
    ]
    with pytest.raises(UserError, match="no_such_case: is to be overruled, but is no unlabelled case"):
        select(project, "all", 1, BY_FLIPS, overrule_low=["no_such_case"])
    with pytest.raises(UserError, match=f"{HIGH}: is to be high and low at once"):
        select(project, "all", 1, BY_FLIPS, overrule_low=[HIGH], overrule_high=[HIGH, LOW])


def test_sams_own_confidence_can_be_asked_for(project: SFRDataset) -> None:
    """The project's first store has a mean probability of 1 for each case, and nothing else."""
    fill_model_store(project, {HIGH: 0.9, LOW: 0.1})
    of_sam = rule(confidence=PAPER_MEASURE, confidence_of="sam")
    assert select(project, "all", 1, of_sam).high == (HIGH, LOW)
    with pytest.raises(UserError, match=r"round_0: no case has a flip_agreement; choose another --confidence, or set"):
        select(project, "all", 1, rule(confidence_of="sam"))
    with pytest.raises(UserError, match=r"round_0: no case has a agreement; .* \(SAM is not compared with itself\)"):
        select(project, "all", 1, rule(confidence="agreement", confidence_of="sam"))
    with pytest.raises(UserError, match=r"round_1_model: no case has a expected_dice; choose another --confidence$"):
        select(project, "all", 1, rule(confidence="expected_dice"))


def test_labels_that_are_not_complete_are_refused(project: SFRDataset) -> None:
    with pytest.raises(UserError, match=r"round_1_model: there are no .* run sfr_pseudolabel --round 1 -tr"):
        select(project, "all", 1, BY_FLIPS)
    store = fill_model_store(project, {HIGH: 0.9, LOW: 0.1})
    (store.folder / f"{LOW}.json").unlink()
    with pytest.raises(UserError, match=rf"no label for {LOW} \(1 of 2 cases are missing\)"):
        select(project, "all", 1, BY_FLIPS)
    assert not project.paths.selection("all", 1).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('{"high": []}', "the key low is missing"),
        ('{"high": [], "low": [], "surprise": 1}', "is not a selection"),
        ('{"high": ["unlabelled_00"], "low": []}', r"does not divide the unlabelled cases \(unlabelled_01\)"),
        (
            '{"high": ["unlabelled_00", "unlabelled_01"], "low": ["unlabelled_01"]}',
            r"does not divide the unlabelled cases \(unlabelled_01\)",
        ),
    ],
)
def test_a_damaged_selection_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "selection.json"
    with pytest.raises(UserError, match="not found; run sfr_select"):
        read_selection(file, [HIGH, LOW])
    file.write_text(content)
    with pytest.raises(UserError, match=said):
        read_selection(file, [HIGH, LOW])


def test_identifiers_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "high.txt"
    file.write_text("# seen by Dr. X\ncase_1\n\n  case_2  # sharp\n")
    assert read_identifiers(file) == ["case_1", "case_2"]
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read"):
        read_identifiers(tmp_path / "nowhere.txt")


def test_warnings(project: SFRDataset) -> None:
    store = fill_model_store(project, {HIGH: 0.9, LOW: 0.1})
    assert project.class_names == {"1": "class_1"}
    assert warnings(select(project, "all", 1, BY_FLIPS), store, project.class_names) == []
    none_high = select(project, "all", 1, rule(threshold=1.0))
    assert none_high.high == ()
    assert ["no case is high" in text for text in warnings(none_high, store, project.class_names)] == [True]
    everybody = select(project, "all", 1, rule(threshold=0.0))
    assert ["no case is low" in text for text in warnings(everybody, store, project.class_names)] == [True]
    two_classes = {"1": "liver", "2": "tumour"}
    [warning] = warnings(select(project, "all", 1, BY_FLIPS), store, two_classes)
    assert warning == "the model's labels of any case do not have tumour"

    change_voxels(store, HIGH, {"0": 5, "1": 0, "2": 3})
    [warning] = warnings(select(project, "all", 1, BY_FLIPS), store, two_classes)
    assert warning == "the model's labels of a high case do not have liver"


def test_a_case_in_which_nothing_was_found_is_never_high(project: SFRDataset) -> None:
    store = fill_model_store(project, {HIGH: 0.9, LOW: 0.1})
    change_voxels(store, HIGH, {"0": 5, "1": 0})
    selection = select(project, "all", 1, rule(threshold=0.0))
    assert (selection.high, selection.low) == ((LOW,), (HIGH,))


def change_voxels(store: PseudoLabelStore, case: str, class_voxels: dict[str, int]) -> None:
    record = store.folder / f"{case}.json"
    record.write_text(json.dumps({**json.loads(record.read_text(encoding="utf-8")), "class_voxels": class_voxels}))


def test_the_histogram_shows_both_sides(tmp_path: Path) -> None:
    values: dict[str, float | None] = {f"case_{index}": 0.5 + index / 40 for index in range(20)} | {"none": None}
    high = tuple(case for case, value in values.items() if value is not None and value > 0.8)
    low = tuple(case for case in values if case not in high)
    selection = Selection(high, low, {"confidence": "flip_agreement", "value_of_least_sure_high_case": 0.8}, values)
    plot(selection, tmp_path / "histogram.png")
    pixels = np.asarray(Image.open(tmp_path / "histogram.png").convert("RGB")).reshape(-1, 3)
    for colour in (HIGH_COLOUR, LOW_COLOUR):
        rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        assert (pixels == rgb).all(axis=1).sum() > 1000, "a side of the histogram is missing"
    plot(Selection((), ("only",), {"confidence": "flip_agreement"}, {"only": 0.5}), tmp_path / "one.png")
    plot(Selection((), ("only",), {"confidence": "flip_agreement"}, {"only": None}), tmp_path / "none.png")
