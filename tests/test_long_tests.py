"""The list of long tests names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tests.long_tests import LONG, is_long


@pytest.mark.parametrize("name", LONG)
def test_every_name_is_a_test(name: str) -> None:
    file, _, function = name.partition("::")
    text = (REPOSITORY / file).read_text()
    assert re.search(rf"^def {re.escape(function.partition('[')[0]) or 'test_'}", text, flags=re.MULTILINE)


def test_a_name_stands_for_a_file_a_test_or_its_parameters() -> None:
    assert is_long("tests/pipeline/test_killed_runs.py::test_anything")
    assert is_long("tests/sam_stage/test_processes.py::test_two_processes_equal_one")
    assert not is_long("tests/sam_stage/test_processes.py::test_two_processes_equal_one_another")
    assert not is_long(
        "tests/sam_stage/test_processes.py::test_the_loss_of_a_shared_batch_is_that_of_the_joined_one[0]"
    )
