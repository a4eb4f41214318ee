"""The tests that take long, with the reason: ``make test`` leaves them to ``make test-all``, which .ci/run calls.

This is the one place that gives a test the marker ``long``. A name stands for a file, a test of it, or all parameters
of that test. Whoever adds a name makes sure that something in ``make test`` still runs the code.
"""

from __future__ import annotations

LONG = {
    "tests/test_installation.py::test_installation_and_uninstallation": "fresh environments",
    "tests/test_installation.py::test_half_removed_package_leaves_python_starting_in_silence": "fresh environments",
    "tests/pipeline/test_killed_runs.py": "the real sfr_run with the real commands, killed ten times",
    "tests/sam_stage/test_processes.py::test_two_processes_equal_one": "fine-tuning under torchrun",
    "tests/sam_stage/test_processes.py::test_a_batch_that_cannot_be_shared_is_refused": "fine-tuning under torchrun",
    "tests/trainers/test_compiled.py": "whole trainings with torch.compile",
    "tests/trainers/test_distributed.py::test_ranks_agree_after_three_steps": "two processes with DDP",
    "tests/trainers/test_distributed.py::test_helpers_make_ranks_agree": "two processes with DDP",
    "tests/trainers/test_distributed.py::test_gradients_are_those_of_the_joined_batch": "two processes with DDP",
    "tests/trainers/test_distributed.py::test_a_killed_run_goes_on_and_ends": "two processes with DDP",
    "tests/trainers/test_distributed.py::test_ranks_share_the_labelling_of_the_pool": "two processes with DDP",
}
"""Names as pytest prints them, and why they take long."""


def is_long(name: str) -> bool:
    """Whether a test, by its name as pytest prints it, is one of them."""
    return any(name == long or name.startswith((f"{long}::", f"{long}[")) for long in LONG)
