"""Which cases come first, why, and that no two are alike."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from nnunet_sfr.report.annotation import Candidate, RankedCase, rank_cases, similarity, write_list

NAMES = {"1": "left atrium"}


def basis(index: int, size: int = 8) -> tuple[float, ...]:
    """A thumbnail that is like no other."""
    return tuple(np.eye(size)[index].tolist())


def candidate(
    name: str,
    confidence: float | None,
    disagreement: float | None = None,
    *,
    volume: float = 50.0,
    outliers: tuple[str, ...] = (),
    thumbnail: tuple[float, ...] = basis(0),
) -> Candidate:
    return Candidate(name, confidence, disagreement, {"1": volume}, outliers, thumbnail)


def order(candidates: list[Candidate], count: int = 20) -> list[str]:
    return [choice.case for choice in rank_cases(candidates, count, NAMES)]


def test_unsure_and_disputed_cases_come_first() -> None:
    pool = [
        candidate("sure", 0.9, 0.1, thumbnail=basis(0)),
        candidate("unsure", 0.2, 0.5, thumbnail=basis(1)),
        candidate("disputed", 0.5, 0.6, thumbnail=basis(2)),
        candidate("middling", 0.6, 0.3, thumbnail=basis(3)),
    ]
    # ranks by confidence and disagreement: sure 0, 0; unsure 1, 2/3; disputed 2/3, 1; middling 1/3, 1/3
    assert order(pool) == ["unsure", "disputed", "middling", "sure"]  # of equals the first
    assert order(pool, 1) == order(pool)[:1]
    outlier = candidate("outlier", 0.59, 0.31, outliers=("1",), thumbnail=basis(4))
    assert order([*pool, outlier])[2] == "outlier"


def test_a_case_in_which_nothing_was_found_is_the_least_sure() -> None:
    pool = [candidate("low", 0.05, thumbnail=basis(0)), candidate("empty", None, volume=0.0, thumbnail=basis(1))]
    choices = rank_cases(pool, 2, NAMES)
    assert [choice.case for choice in choices] == ["empty", "low"]
    assert choices[0].reasons == ["nothing found"]


def test_a_twin_of_a_chosen_case_waits() -> None:
    pool = [
        candidate("first", 0.10, thumbnail=basis(0)),
        candidate("twin", 0.11, thumbnail=basis(0)),
        candidate("other", 0.30, thumbnail=basis(1)),
        candidate("another", 0.40, thumbnail=basis(2)),
    ]
    assert order(pool) == ["first", "other", "another", "twin"]
    # the same image with a target of another size is no twin: likeness 0.1, and its worth stays near 2/3, against 1/3
    assert order([pool[0], candidate("twin", 0.11, volume=5.0), *pool[2:]])[1] == "twin"


def test_only_what_is_more_alike_than_usual_counts() -> None:
    # every pair correlates with 0.5 but the last, with 0.75
    common, own = np.sqrt(0.5), np.sqrt(0.5)
    thumbnails = [np.r_[common, own * np.eye(4)[index]] for index in range(4)]
    thumbnails.append(np.r_[common, own * np.array([0, 0, 0, 0.5])])
    thumbnails[4] = np.r_[thumbnails[4], np.sqrt(1 - thumbnails[4] @ thumbnails[4])]
    pool = [
        candidate(str(index), 0.5, thumbnail=tuple(np.resize(np.r_[one, 0], 6))) for index, one in enumerate(thumbnails)
    ]
    alike = similarity(pool)
    assert alike[0, 1] == pytest.approx(0)
    assert alike[3, 4] == pytest.approx(0.5)  # (0.75 - 0.5) / (1 - 0.5)
    assert alike[0, 0] == pytest.approx(1)


def test_pools_of_one_or_of_equals() -> None:
    assert order([]) == []
    assert order([candidate("only", 0.5)]) == ["only"]
    assert sorted(order([candidate("a", 0.5), candidate("b", 0.5)])) == ["a", "b"]


def test_reasons_say_what_is_odd() -> None:
    pool = [candidate(f"case_{index}", 0.8 + index / 100, 0.1, volume=40.0 + 5 * index) for index in range(9)]
    odd = candidate("odd", 0.12, 0.73, volume=3.1, outliers=("1",))
    lacking = candidate("lacking", 0.95, 0.0, volume=0.0, outliers=("1",))
    reasons = {choice.case: choice.reasons for choice in rank_cases([*pool, odd, lacking], 20, NAMES)}
    # the ten others: 0, 40, 45, ..., 80 ml, whose 10th and 90th percentiles are 36 and 75.5
    assert reasons["odd"] == [
        "low confidence 0.12",
        "SAM and the model disagree: 0.73",
        "volume of left atrium 3.1 ml, most others 36 to 76",
    ]
    assert reasons["lacking"] == ["nothing found"]
    # ranks 0.1 and, shared by nine, 0.5
    assert reasons["case_8"] == ["disagreement 0.10"]


def test_an_outlier_that_is_left_alone_has_no_others() -> None:
    [choice] = rank_cases([candidate("only", 0.5, volume=3.1, outliers=("1",))], 20, NAMES, "SAM")
    assert choice.reasons == ["volume of left atrium 3.1 ml (SAM)"]


def test_the_list_as_csv(tmp_path: Path) -> None:
    choices = [RankedCase("b", ["low confidence 0.12", "nothing, really"]), RankedCase("a", [])]
    write_list(choices, {"b": ["/raw/b_0000.nii.gz", "/raw/b_0001.nii.gz"]}, tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["rank", "case", "images", "reasons"],
            ["1", "b", "/raw/b_0000.nii.gz; /raw/b_0001.nii.gz", "low confidence 0.12; nothing, really"],
            ["2", "a", "", ""],
        ]
