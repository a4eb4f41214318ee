"""The list of long tests names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tests.long_tests import LONG, Long, is_long

STEPS = "tests/trainers/test_every_trainer.py::test_a_few_steps_on_every_kind_of_data_set"


@pytest.mark.parametrize("long", LONG, ids=lambda long: long.name)
def test_every_name_is_a_test(long: Long) -> None:
    file, _, function = long.name.partition("::")
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {re.escape(function) if function else 'test_'}", text, flags=re.MULTILINE)


def test_a_name_stands_for_a_file_or_a_test_with_all_or_some_parameters() -> None:
    assert is_long("tests/pipeline/test_killed_runs.py::test_anything")
    assert is_long("tests/sam_stage/test_processes.py::test_two_processes_equal_one")
    assert is_long("tests/test_installation.py::test_installation_and_uninstallation[wheel]")
    assert not is_long("tests/sam_stage/test_processes.py::test_two_processes_equal_one_another")
    assert is_long(f"{STEPS}[nnUNetTrainer_MT-two_channels]")
    assert not is_long(f"{STEPS}[nnUNetTrainer_MT-3d]")
    assert not is_long(f"{STEPS}[nnUNetTrainerSFR_MT-two_channels]")
