"""The tests that take long, with the reason: ``make test`` leaves them to ``make test-all``, which .ci/run calls.

This is the one place that gives a test the marker ``long``. Whoever adds one makes sure that something in ``make test``
still runs the code.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple


class Long(NamedTuple):
    """Tests that take long.

    Args:
        name: of a file, or of one test in it, as pytest prints it without parameters.
        reason: why they take long, or what is left for ``make test``.
        parameters: which sets of parameters, as pytest prints them, each with wildcards; all if there are none.
    """

    name: str
    reason: str
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        which = f" [{' '.join(self.parameters)}]" if self.parameters else ""
        return f"{self.name}{which}: {self.reason}"


_DDP = "two processes with DDP"
_EVERY_TRAINER = "tests/trainers/test_every_trainer.py"

LONG = (
    Long(
        "tests/conversion/test_planned.py",
        "make test trains on four channels with regions and on cropped CT of eight organs",
        ("one_channel*", "oblique*", "four_organs*", "thick_slices*"),
    ),
    Long("tests/pipeline/test_killed_runs.py", "the real sfr_run with the real commands, killed ten times"),
    Long("tests/sam_stage/test_processes.py::test_two_processes_equal_one", "fine-tuning under torchrun"),
    Long("tests/sam_stage/test_processes.py::test_a_batch_that_cannot_be_shared_is_refused", "under torchrun"),
    Long("tests/test_installation.py::test_installation_and_uninstallation", "fresh environments"),
    Long("tests/test_installation.py::test_half_removed_package_leaves_python_starting_in_silence", "the same"),
    Long(
        "tests/test_everything_nnunet_plans.py::test_the_whole_path",
        "the commands run on the plainest data set and on regions in make test",
        ("2d", "two_channels", "four_classes*", "ignore_label"),
    ),
    Long("tests/trainers/test_magicnet.py::test_a_resumed_run_ends_with_the_same_weights", "two whole trainings"),
    Long("tests/trainers/test_compiled.py", "whole trainings with torch.compile"),
    Long("tests/trainers/test_distributed.py::test_helpers_make_ranks_agree", _DDP),
    Long("tests/trainers/test_distributed.py::test_ranks_agree_after_three_steps", _DDP),
    Long("tests/trainers/test_distributed.py::test_gradients_are_those_of_the_joined_batch", _DDP),
    Long("tests/trainers/test_distributed.py::test_a_killed_run_goes_on_and_ends", _DDP),
    Long("tests/trainers/test_distributed.py::test_ranks_share_the_labelling_of_the_pool", _DDP),
    Long(
        f"{_EVERY_TRAINER}::test_a_few_steps_on_every_kind_of_data_set",
        "every trainer runs on one kind of data set in make test, and MT and MagicNet on every kind",
        (
            "nnUNetTrainer_*-[!3]*",
            "nnUNetTrainerSFR_ACMT-[!3]*",
            "nnUNetTrainerSFR_ICT-[!3]*",
            "nnUNetTrainerSFR_ST-[!3]*",
            "nnUNetTrainerSFR_BCP-[!3]*",
            "nnUNetTrainerSFR_UAMT-[!3]*",
            "nnUNetTrainerSFRPlus_*-[!3]*",
            "nnUNetTrainerSFRPlus_ACMT-3d",
            "nnUNetTrainerSFRPlus_ICT-3d",
            "nnUNetTrainerSFRPlus_MagicNet-3d",
            "nnUNetTrainerSFRPlus_BCP-3d",
            "nnUNetTrainerSFRPlus_UAMT-3d",
            "*-3d_lowres",
        ),
    ),
    Long(
        f"{_EVERY_TRAINER}::test_killed_and_resumed_equals_uninterrupted",
        "MT, self-training and a round of MT are resumed in make test",
        (
            "nnUNetTrainer_*",
            "nnUNetTrainerSFR_ACMT",
            "nnUNetTrainerSFR_ICT",
            "nnUNetTrainerSFR_MagicNet",
            "nnUNetTrainerSFR_BCP",
            "nnUNetTrainerSFR_UAMT",
            "nnUNetTrainerSFRPlus_BCP",
            "nnUNetTrainerSFRPlus_UAMT",
            "nnUNetTrainerSFRPlus_ACMT",
            "nnUNetTrainerSFRPlus_ICT",
            "nnUNetTrainerSFRPlus_MagicNet",
            "nnUNetTrainerSFRPlus_ST",
        ),
    ),
)


def is_long(node: str) -> bool:
    """Whether a test is one of them; ``node`` is its name as pytest prints it, parameters in brackets behind it."""
    name, _, parameters = node.partition("[")
    return any(
        (name == long.name or name.startswith(f"{long.name}::"))
        and (not long.parameters or any(fnmatchcase(parameters[:-1], pattern) for pattern in long.parameters))
        for long in LONG
    )
