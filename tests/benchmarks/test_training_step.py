"""The benchmark of a training step runs the real trainers, reports what it measured and holds to its limits.

No test here asserts a time.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import every_trainer
from benchmarks.measuring import FOR_MEMORY, TRAINERS, Memory, TrainingStep, in_fresh_process, measure_time
from benchmarks.project import Workload, environment, make_plans, temporary_project
from benchmarks.report import replace_section
from benchmarks.training_step import MIB, README, SECTION, main
from nnunet_sfr.errors import UserError
from nnunet_sfr.trainers import TRAINERS as ALL_TRAINERS

TINY = Workload(patch_size=(16, 16, 8), features=(4, 6, 8), batch_size=2, classes=3)
TINY_ARGUMENTS = shlex.split(
    "--patch 16 16 8 --features 4 6 8 --classes 3 --steps 2 --warmup 1 --repeats 2 --threads 1"
)


def call_here(function: Callable[..., Any], *arguments: Any, variables: Mapping[str, str]) -> Any:
    """Stands in for a fresh process, which takes seconds to start."""
    with environment(variables):
        return function(*arguments)


def measured(sfr_time: float, sfr_memory: int) -> Callable[..., Any]:
    """Stands in for a measurement in which the stock trainer takes 1 s and 100 MiB."""

    def call(function: Callable[..., Any], *arguments: Any, variables: Mapping[str, str]) -> Any:
        if function is measure_time:
            return [[[1.0]], [[sfr_time]]]
        peak = (sfr_memory if arguments[0] is TRAINERS[1] else 100) * MIB
        return Memory(tensors=peak, added=peak, resident=None)

    return call


def test_both_trainers_are_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    file = tmp_path / "report.json"
    assert main([*TINY_ARGUMENTS, "--output", str(file)], call_here) == 0
    assert dict(os.environ) == before
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [[len(turn) for turn in turns] for turns in report["seconds"]] == [[2, 2], [2, 2]]
    assert len(report["ratios_by_turn"]) == 2
    assert report["workload"]["features"] == list(TINY.features)
    stock, sfr = report["memory"]
    assert 0 < stock["tensors"] < sfr["tensors"], "the teacher's weights come on top"
    names = [row["name"] for row in report["rows"]]
    assert names[:2] == ["wall time, median (s)", "peak of tensors (MiB)"]
    printed = capsys.readouterr().out
    assert "| nnUNetTrainer | nnUNetTrainerSFR_MT | ratio | limit |" in printed
    assert "2 (SFR: and 2 unlabelled) of 16 x 16 x 8" in printed


def test_sfr_steps_take_as_many_unlabelled_patches_as_labelled() -> None:
    with temporary_project(TINY):
        stock, sfr = (TrainingStep(trainer, torch.device("cpu")).batch for trainer in TRAINERS)
    for batch in (stock, sfr["labelled"], sfr["unlabelled"]):
        assert batch["data"].shape == (2, 1, 16, 16, 8)
        assert [tuple(target.shape) for target in batch["target"]] == [(2, 1, 16, 16, 8), (2, 1, 8, 8, 4)]
        assert batch["target"][0].dtype == torch.int16


@pytest.mark.parametrize(
    ("sfr_time", "sfr_memory", "exit_code", "complaint"),
    [
        (2.5, 120, 0, ""),
        (2.7, 120, 1, "error: wall time, median (s): 2.70 times stock, allowed are 2.6\n"),
        (2.5, 140, 1, "peak of tensors (MiB): 1.40 times stock, allowed are 1.3"),
    ],
)
def test_limits_are_enforced_on_request(
    sfr_time: float, sfr_memory: int, exit_code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call = measured(sfr_time, sfr_memory)
    assert main(["--enforce"], call) == exit_code
    assert complaint in capsys.readouterr().err
    assert main([], call) == 0


def test_markdown_report_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.md"
    assert main(["--output", str(file)], measured(2.4, 110)) == 0
    assert file.read_text(encoding="utf-8") == capsys.readouterr().out
    assert "|        1.0000 |              2.4000 |  2.40 |  2.60 |" in file.read_text(encoding="utf-8")


def test_every_trainer_is_timed_against_stock(capsys: pytest.CaptureFixture[str]) -> None:
    """Real steps of all trainers; the memory, which takes the profiler long, is scripted."""

    def call(function: Callable[..., Any], *arguments: Any, variables: Mapping[str, str]) -> Any:
        if function is measure_time:
            return call_here(function, *arguments, variables=variables)
        peak = (300 if "MagicNet" in arguments[0].__name__ else 100) * MIB
        return Memory(tensors=peak, added=peak, resident=None)

    assert every_trainer.main(TINY_ARGUMENTS, call) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines[2:]
        if "|" in line
    }
    assert set(cells) == {"nnUNetTrainer", *ALL_TRAINERS}
    assert cells["nnUNetTrainer"][1:] == ["1.00", "1.00, 1.00", "100.0", "1.00"]
    assert cells["nnUNetTrainerSFR_MagicNet"][3:] == ["300.0", "3.00"]
    for row in cells.values():
        assert float(row[0]) > 0


def test_readme_has_a_place_for_the_table(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"))
    replace_section(copy, SECTION, "first")
    replace_section(copy, SECTION, "second")
    text = copy.read_text(encoding="utf-8")
    assert "<!-- training_step:start -->\nsecond\n<!-- training_step:end -->\n" in text
    assert "first\n" not in text
    assert text.startswith("# Benchmarks\n")
    copy.write_text("nothing")
    with pytest.raises(UserError, match="has no lines"):
        replace_section(copy, SECTION, "third")


@pytest.mark.parametrize(
    ("patch_size", "features", "message"),
    [
        ((16, 16, 16), (4, 8), "--features: 2 stages, but nnU-Net's deep supervision needs 3"),
        ((8, 8, 8), (4, 8, 16), "3 stages do not fit --patch 8 8 8, which has 2 at most"),
        ((16, 18, 16), (4, 8, 16), "--patch 16 18 16: cannot be halved often enough for 3 stages; use 16 20 16"),
    ],
)
def test_patch_that_does_not_fit_the_network_is_refused(
    patch_size: tuple[int, int, int], features: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_plans(Workload(patch_size, features, batch_size=2, classes=2))


def test_variables_reach_a_fresh_process_and_leave_with_it() -> None:
    name = "MALLOC_TRIM_THRESHOLD_"
    assert in_fresh_process(os.getenv, name, variables=FOR_MEMORY) == FOR_MEMORY[name]
    assert in_fresh_process(os.getpid, variables={}) != os.getpid()
    assert name not in os.environ


def test_death_of_a_fresh_process_is_one_line() -> None:
    with pytest.raises(UserError, match="smaller --patch or --batch-size"):
        in_fresh_process(os._exit, 9, variables={})
