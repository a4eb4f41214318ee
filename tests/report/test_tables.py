"""Tables of the report that are read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_sfr.atomic import write_json
from nnunet_sfr.crosscheck.findings import summarise
from nnunet_sfr.crosscheck.left_out import LeftOutCase
from nnunet_sfr.errors import UserError
from nnunet_sfr.report.tables import crosscheck_table


def test_the_cross_check_has_a_row_for_each_class(tmp_path: Path) -> None:
    file = tmp_path / "crosscheck.json"
    assert crosscheck_table(file) is None
    cases = [
        LeftOutCase("a", 0, {"1": 0.9, "2": None}, {"flip_agreement": 0.9, "class_voxels": {"1": 5}}),
        LeftOutCase("b", 1, {"1": 0.7, "2": None}, {"flip_agreement": 0.7, "class_voxels": {"1": 5}}),
    ]
    write_json(summarise(cases, {"1": "atrium", "2": "valve"}, [{"flip_agreement": 0.75}]).to_json(), file)
    table = crosscheck_table(file)
    assert table is not None
    assert table.title == "SFR is likely to help: SAM's labels have an expected Dice of 0.75"
    assert [list(row) for row in table.rows] == [
        ["atrium", "0.800", "0.700 to 0.900", "2", "0"],
        ["valve", "-", "-", "0", "0"],
        ["mean of the cases", "0.800", "0.700 to 0.900", "2", "-"],
        ["expected in the unlabelled cases", "0.750", "-", "1", "-"],
    ]
    write_json({"classes": {}, "cases": []}, file)
    with pytest.raises(UserError, match=r"crosscheck\.json: the key mean is missing; run sfr_crosscheck again"):
        crosscheck_table(file)
