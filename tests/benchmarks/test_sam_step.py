"""The benchmark of the SAM stage measures the real encoders, reports them and holds to its limits.

No test here asserts a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import sam_commands, sam_step
from benchmarks.project import environment
from benchmarks.sam_step import MIB, Step, Subject, Times, main, measure_times


def call_here(function: Callable[..., Any], *arguments: Any, variables: Mapping[str, str]) -> Any:
    """Stands in for a fresh process, which takes seconds to start."""
    with environment(variables):
        return function(*arguments)


def measured(*cpu: float) -> Callable[..., Any]:
    """Stands in for a measurement: CPU time of each side in seconds; wall time is half of it, memory 100 and 50 MiB."""

    def call(function: Callable[..., Any], *arguments: Any, variables: Mapping[str, str]) -> Any:
        if function is measure_times:
            return [Times(cpu=[0.1, seconds, 99], wall=[0.1, seconds / 2, 99]) for seconds in cpu]
        return (100, 50)[arguments[1]] * MIB

    return call


def nothing() -> Step:
    return lambda: None


def test_encoders_are_measured_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = Subject(
        name="embed a canvas of 32²",
        reference=partial(sam_step._published_encoder, 32),
        ours=partial(sam_step._fast_encoder, 32),
    )
    monkeypatch.setattr(sam_step, "SUBJECTS", {"small": subject})
    file = tmp_path / "report.json"
    options = ["--only", "small", "--steps", "2", "--repeats", "3", "--output", str(file)]
    assert main(options, call_here) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [len(side[kind]) for side in report["seconds"]["small"] for kind in ("cpu", "wall")] == [6, 6, 6, 6]
    names = [line["name"] for line in report["lines"]]
    assert names[:2] == ["embed a canvas of 32², CPU time (s)", "embed a canvas of 32², wall time (s)"]
    printed = capsys.readouterr().out
    assert "| reference | " in printed
    assert "- timing: 3 turns of 2 steps each, after 1 to warm up; medians" in printed


def test_both_encoders_compute_the_same() -> None:
    torch.manual_seed(0)
    reference = sam_step._published_encoder(32)()
    torch.manual_seed(0)
    ours = sam_step._fast_encoder(32)()
    assert isinstance(reference, torch.Tensor)
    assert isinstance(ours, torch.Tensor)
    assert not reference.requires_grad
    assert (ours - reference).abs().mean() < 0.05 * reference.std()


@pytest.mark.parametrize(
    ("seconds", "exit_code", "complaint"),
    [
        (0.39, 0, ""),
        (0.41, 1, "error: embed a canvas of 256², CPU time (s): 0.41 times the reference, allowed are 0.4\n"),
    ],
)
def test_limit_of_the_ratio_is_enforced_on_request(
    seconds: float, exit_code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call = measured(1.0, seconds)
    assert main(["--enforce", "--only", "encoder_256"], call) == exit_code
    assert complaint in capsys.readouterr().err
    assert main(["--only", "encoder_256"], call) == 0


def test_report_has_times_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.md"
    assert main(["--only", "encoder_256", "--output", str(file)], measured(1.0, 0.25)) == 0
    text = file.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    assert "| embed a canvas of 256², CPU time (s)       |     1.000 | 0.250 |  0.25 |  0.40 |" in text
    assert "| embed a canvas of 256², wall time (s)      |     0.500 | 0.125 |  0.25 |       |" in text
    assert "| embed a canvas of 256², added memory (MiB) |       100 |    50 |  0.50 |       |" in text


@pytest.mark.parametrize(("seconds", "exit_code"), [(4.0, 0), (4.2, 1)])
def test_a_duration_stands_for_itself(
    seconds: float, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = Subject(name="all of it", ours=nothing, limit=2.0, repeated=False)
    monkeypatch.setattr(sam_step, "SUBJECTS", {"all": subject})
    assert main(["--enforce"], measured(seconds)) == exit_code
    printed = capsys.readouterr()
    assert "| all of it, wall time (s) |           |" in printed.out
    assert "2 s |" in printed.out
    assert "memory" not in printed.out
    assert ("all of it, wall time (s): 2.1, allowed are 2.0" in printed.err) == bool(exit_code)


def test_what_takes_minutes_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    for repeated, expected in ((False, 1), (True, 3 * (1 + 2))):
        subject = Subject(name="long", ours=lambda: partial(runs.append, "run"), repeated=repeated)
        monkeypatch.setattr(sam_step, "SUBJECTS", {"long": subject})
        runs.clear()
        (times,) = measure_times("long", 1, 3, 1, 2)
        assert len(runs) == expected
        assert len(times.cpu) == len(times.wall) == (6 if repeated else 1)


def test_help_does_not_import_torch() -> None:
    code = "import sys; import benchmarks.sam_step; sys.exit('torch' in sys.modules)"
    repository = Path(sam_step.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


def test_every_subject_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """At sizes of a test: the decoder's step and the attention's run, ours and the reference."""
    for autocast in (False, True):
        step = sam_step._decoder_step(autocast=autocast)
        assert callable(step)
    sam_step._vit_attention(ours=True)()
    sam_step._vit_attention(ours=False)()


def test_commands_are_lines_of_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """200 s and 1.5 s are within the limits; 64 views that take a tenth more memory than 8 are not."""
    taken = sam_commands.Commands(200.0, 1.5, 1000 * MIB, 1100 * MIB)
    monkeypatch.setattr(sam_commands, "measure_commands", lambda source, threads: taken)
    monkeypatch.setattr(sam_step, "SUBJECTS", {"nothing": Subject(name="nothing", ours=nothing)})
    options = ["--only", "nothing", "--data", "somewhere", "--enforce"]
    assert main(options, measured(0.1)) == 1
    printed = capsys.readouterr()
    assert "| sfr_finetune, 1 labelled LA (s)" in printed.out
    assert "peak memory (MiB): 1.10 times the reference, allowed are 1.05" in printed.err
    assert "sfr_pseudolabel" not in printed.err
