"""Worker processes: what they raise, and what happens when one dies."""

from __future__ import annotations

import math
import os
import sys

import pytest

from nnunet_sfr.data.parallel import _guarded, run_parallel
from nnunet_sfr.errors import UserError


def test_results_keep_the_order_of_the_tasks() -> None:
    assert run_parallel(math.factorial, [3, 1, 2], processes=1, description="") == [6, 1, 2]


def test_no_tasks_start_no_process() -> None:
    assert run_parallel(math.factorial, [], processes=8, description="") == []


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    with pytest.raises(UserError, match=r"Reading: a worker process was killed.*fewer processes than 2"):
        run_parallel(os._exit, [3, 3], processes=2, description="Reading")


def test_a_worker_that_exits_does_not_end_the_command() -> None:
    with pytest.raises(RuntimeError, match="in a worker process"):
        _guarded(sys.exit, 3)
