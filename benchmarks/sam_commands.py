"""What ``sfr_finetune`` and ``sfr_pseudolabel`` take from end to end: one labelled left atrium, everything as planned.

:func:`measure_commands` is what ``benchmarks/sam_step.py --data`` calls.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.studies.steps import Steps
from benchmarks.studies.study import Study, open_workspace
from benchmarks.workspace import ProjectFolders, change_settings
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import DEFAULT_MODEL

FEW_VIEWS, MANY_VIEWS = 8, 64
"""Views of each labelled patch, whose number must not show in the memory."""
SHORT = {"iterations": 10, "warmup_fraction": 0.1, "validation_every": 10}


@dataclass(frozen=True)
class Commands:
    """What was measured.

    Args:
        finetune_seconds: of ``sfr_finetune`` with one labelled case, as planned.
        pseudolabel_seconds: of ``sfr_pseudolabel`` for each case, with mirrored images, start included.
        peak_few_views: bytes resident at the peak of ``sfr_finetune`` with few views.
        peak_many_views: the same with many.
    """

    finetune_seconds: float
    pseudolabel_seconds: float
    peak_few_views: int
    peak_many_views: int


def measure_commands(source: Path, threads: int) -> Commands:
    """Convert, plan, and measure.

    Args:
        source: folder that ``sfr_convert LA`` reads.
        threads: of torch.

    Raises:
        UserError: the folder is another, or a command failed.
    """
    study = Study(
        source=str(source.expanduser().resolve()),
        labelled=1,
        spacing=2.5,
        iterations=400,
        iterations_per_epoch=50,
        validation_iterations_per_epoch=5,
        sam=DEFAULT_MODEL,
        adaptation=None,
        sam_iterations=None,
        rounds=1,
        planner="ExperimentPlannerCPU",
        device="cpu",
    )
    with TemporaryDirectory(prefix="nnunet_sfr_benchmark_") as folder:
        workspace = open_workspace(Path(folder), study)
        steps = Steps(study, workspace, threads)
        steps.prepare(with_sam=False)
        return _measure(steps, workspace.base)


def _measure(steps: Steps, project: ProjectFolders) -> Commands:
    environment = steps.environment(project)
    case = ["-d", "120", "-p", project.plans, "-device", "cpu"]
    finetune, _ = _run(["sfr_finetune", *case], environment)
    labels, _ = _run(["sfr_pseudolabel", *case], environment)
    cases = len(list((project.raw_dataset / "imagesUl").iterdir()))
    peaks = []
    for views in (FEW_VIEWS, MANY_VIEWS):
        change_settings(project.sfr_plan, {"fine_tuning": {**SHORT, "views": views}})
        peaks.append(_run(["sfr_finetune", *case, "--overwrite"], environment)[1])
    return Commands(finetune, labels / cases, *peaks)


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[float, int]:
    """Seconds of a command, and bytes resident at its peak."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=dict(environment))
    _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise UserError(f"{command[0]} failed with exit code {code}; its messages are above")
    # kilobytes on Linux
    return time.perf_counter() - start, usage.ru_maxrss * 1024
