"""The way from volumes to a table and a picture, by the commands that a user would type: ``sfr_run`` above all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.workspace import (
    CONFIGURATION,
    ROOTS,
    ProjectFolders,
    Runner,
    change_settings,
    process_environment,
    run_public_command,
)
from demo.figure import Picture, draw, read_picture
from demo.raw_data import build_raw_data
from demo.scoring import Score, as_text, score_folder, table_rows, write_table
from nnunet_sfr.conversion.source_dataset import ENDING
from nnunet_sfr.conversion.volume_folder import VolumeFolder
from nnunet_sfr.errors import StepError
from nnunet_sfr.json_files import read_json

DATASET_ID, DATASET_NAME = "900", "Dataset900_SFRDemo"
PLANNER, PLANS = "ExperimentPlannerCPU", "nnUNetPlansCPU"
PSEUDO_LABEL, PREDICTION = "pseudo-label", "prediction"


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What ``run.py`` was asked for; its ``--help`` says what each means."""

    device: str = "cpu"
    spacing: float | None = None
    iterations: int = 200
    epochs: int = 5
    iterations_per_epoch: int = 30

    @property
    def schedules(self) -> dict[str, dict[str, float]]:
        """Settings of the SFR plan to change, by section; the planned ones are for hours on a GPU."""
        return {
            "fine_tuning": {
                "iterations": self.iterations,
                "warmup_fraction": 0.1,
                "validation_every": max(1, self.iterations // 3),
            },
            "retraining": {
                "iterations_per_epoch": self.iterations_per_epoch,
                "validation_iterations_per_epoch": max(1, self.iterations_per_epoch // 10),
            },
        }


@dataclass(frozen=True)
class DemoFolders:
    """The folders below the output folder."""

    output: Path

    @property
    def project(self) -> ProjectFolders:
        """nnU-Net's folders."""
        return ProjectFolders(self.output, self.output / ROOTS[0], PLANS, DATASET_NAME)

    @property
    def raw_data(self) -> Path:
        return self.project.raw_dataset

    @property
    def sfr_plan(self) -> Path:
        return self.project.sfr_plan

    @property
    def pseudo_labels(self) -> Path:
        return self.output / "pseudo_labels"

    @property
    def report(self) -> Path:
        return self.output / "report"

    @property
    def predictions(self) -> Path:
        return self.output / "predictions"


def command_lines(workspace: DemoFolders, options: DemoOptions) -> dict[str, list[str]]:
    """The public commands in their order, by the title of their step."""
    plan = ["sfr_plan_and_preprocess", "-d", DATASET_ID, "-c", CONFIGURATION, "-pl", PLANNER]
    if options.spacing is not None:
        plan += ["-overwrite_target_spacing", *[f"{options.spacing:g}"] * 3]
    case = ["-d", DATASET_ID, "-c", CONFIGURATION, "-p", PLANS]
    device = ["-device", options.device]
    folders = ["-i", str(workspace.raw_data / "imagesTs"), "-o", str(workspace.predictions)]
    run = ["sfr_run", *case, *device, "--epochs", str(options.epochs), *folders]
    export = ["sfr_pseudolabel", *case, *device, "--export", str(workspace.pseudo_labels)]
    return {
        "Plan and preprocess labelled and unlabelled cases": plan,
        "Fine-tune SAM, let it label, train nnU-Net on labels and pseudo-labels, predict": run,
        "Write SAM's pseudo-labels as images, to score them": export,
        "A page about the pseudo-labels, for the browser": ["sfr_report", *case, "-o", str(workspace.report)],
        "How long each step of the run took, and how to use the model": [*run, "--status"],
    }


def run_demo(
    volumes: VolumeFolder, workspace: DemoFolders, options: DemoOptions, run: Runner = run_public_command
) -> None:
    """Go the whole way, then print and write table and figure.

    Raises:
        StepError: a command ended with an exit code other than 0.
        UserError: the volumes or the options are wrong.
    """
    environment = process_environment(workspace.project.roots)
    build_raw_data(volumes, workspace.raw_data)
    _say(f"{DATASET_NAME}: {_counts(volumes)}\n")
    shown = [*workspace.project.roots, "OMP_NUM_THREADS", "nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_compile"]
    _say("\n".join(f"export {name}={shlex.quote(environment[name])}" for name in shown))
    commands = command_lines(workspace, options)
    times: dict[str, float] = {}
    for number, (title, command) in enumerate(commands.items(), start=1):
        _say(f"\n=== {number}/{len(commands)}  {title}\n$ {shlex.join(command)}")
        times[title] = _run_step(f"step {number} of {len(commands)}", command, environment, run)
        _say(f"--- took {_minutes(times[title])}")
        if number == 1:
            _say(f"\nShort schedules, in {workspace.sfr_plan}:")
            _say("\n".join(f"  {change}" for change in change_settings(workspace.sfr_plan, options.schedules)))
    _report(volumes, workspace)
    _say(f"\nTogether {_minutes(sum(times.values()))}.")


def choose_cases(scores: Sequence[Score], result: str) -> list[tuple[Score, str]]:
    """The cases to show of one kind of result: the median by Dice, and the lowest, so that no failure is hidden."""
    ranked = sorted((score for score in scores if score.result == result), key=lambda score: score.mean)
    ranked = [score for score in ranked if not np.isnan(score.mean)]
    if not ranked:
        return []
    median, lowest = ranked[len(ranked) // 2], ranked[0]
    return [(median, "median")] if median is lowest else [(median, "median"), (lowest, "lowest")]


def _run_step(step: str, command: Sequence[str], environment: Mapping[str, str], run: Runner) -> float:
    """Seconds that the command took."""
    start = time.monotonic()
    code = run(command, environment)
    seconds = time.monotonic() - start
    if code != 0:
        raise StepError(
            f"{step}, {command[0]}, failed with exit code {code} after {_minutes(seconds)}; its messages are above",
            code,
        )
    return seconds


def _report(volumes: VolumeFolder, workspace: DemoFolders) -> None:
    names = _foreground_labels(workspace.raw_data / "dataset.json")
    split, labels = volumes.split, list(names)
    scores = score_folder(PSEUDO_LABEL, workspace.pseudo_labels, split.unlabelled, volumes, labels)
    scores += score_folder(PREDICTION, workspace.predictions, split.test, volumes, labels)
    if not scores:
        _say("\nNo unlabelled and no test case has a truth in labels/: nothing to score.")
        return
    rows = table_rows(scores, list(names.values()))
    write_table(rows, workspace.output)
    draw(_pictures(scores, volumes, workspace), workspace.output / "figure.png")
    _say(f"\nDice against the truth, which no training saw\n\n{as_text(rows)}\n")
    files = ("table.csv", "table.md", "figure.png", "report/index.html")
    _say("\n".join(str(workspace.output / name) for name in files))


def _pictures(scores: Sequence[Score], volumes: VolumeFolder, workspace: DemoFolders) -> list[Picture]:
    kinds = (
        (PSEUDO_LABEL, "Unlabelled case", "SAM's pseudo-label", workspace.pseudo_labels),
        (PREDICTION, "Test case", "nnU-Net's prediction", workspace.predictions),
    )
    return [
        read_picture(
            title,
            f"{_short(score.case)}\n{made_by}\nDice {score.mean:.3f} ({rank})",
            image=volumes.image(score.case),
            truth=volumes.label(score.case),
            result=folder / f"{score.case}{ENDING}",
        )
        for result, title, made_by, folder in kinds
        for score, rank in choose_cases(scores, result)
    ]


def _foreground_labels(dataset_json: Path) -> dict[int, str]:
    labels = read_json(dataset_json, "it was written before the first step")["labels"]
    return {value: name for name, value in labels.items() if value > 0}


def _counts(volumes: VolumeFolder) -> str:
    split = volumes.split
    return f"{len(split.labelled)} labelled, {len(split.unlabelled)} unlabelled, {len(split.test)} test cases"


def _short(name: str, length: int = 16) -> str:
    return name if len(name) <= length else f"{name[: length - 3]}..."


def _minutes(seconds: float) -> str:
    return f"{int(seconds + 0.5) // 60} min {int(seconds + 0.5) % 60:02d} s"


def _say(text: str) -> None:
    """Print at once, so that our lines stay before those of the command that follows."""
    print(text, flush=True)
