"""Cases without foreground and classes that no case has."""

from __future__ import annotations

from nnunet_sfr.labelling.emptiness import find_emptiness

NAMES = {"1": "liver", "10": "spleen", "2": "aorta"}


def test_what_is_missing_is_counted_and_named() -> None:
    found = find_emptiness(
        {"b": {"0": 9, "1": 0}, "a": {"0": 5, "1": 4, "2": 0, "10": 0}, "c": {"0": 9}}, class_names=NAMES
    )
    assert found.sentences() == [
        "2 of 3 classes found in none of the 3 cases: aorta, spleen",
        "no foreground in 2 of 3 cases: b, c",
    ]
    assert found.mostly_empty
    assert found.is_suspicious


def test_half_of_the_cases_may_be_empty() -> None:
    found = find_emptiness({"a": {"0": 1, "1": 1}, "b": {"0": 2, "1": 0}}, {"1": "liver"})
    assert (found.mostly_empty, found.is_suspicious) == (False, False)
    assert found.sentences() == ["no foreground in 1 of 2 cases: b"]


def test_without_label_maps_nothing_is_missing() -> None:
    found = find_emptiness({}, NAMES)
    assert (found.is_suspicious, found.sentences()) == (False, [])
