"""What messages and tables are worded with."""

from __future__ import annotations

import pytest

from nnunet_sfr.wording import aligned, last_line


@pytest.mark.parametrize(
    ("message", "said"), [("layer one\n  the cause \n", "the cause"), ("", "RuntimeError"), (" \n", "RuntimeError")]
)
def test_the_last_line_of_an_error(message: str, said: str) -> None:
    assert last_line(RuntimeError(message)) == said


def test_columns_of_a_table() -> None:
    rows = [["", "Dice", "n"], ["liver", "0.9", "10"]]
    assert aligned(rows) == ["       Dice  n", "liver  0.9   10"]
    assert aligned(rows, left=1) == ["       Dice   n", "liver   0.9  10"]
