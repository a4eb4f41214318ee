"""Takes the place of the commands of a run: writes the files that each of them would, in no time."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.run_steps import run_steps
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, change_settings


def run_options(**changes: Any) -> RunOptions:
    """A run on the tiny project, on the CPU."""
    return RunOptions(**{"dataset": "42", "dataset_name": NAME, "plans": PLANS, "device": "cpu", **changes})


class FakeCommands:
    """A runner for :func:`nnunet_sfr.pipeline.run_steps.run_steps`.

    Args:
        dataset: planned.
        options: of the run.
    """

    def __init__(self, dataset: SFRDataset, options: RunOptions) -> None:
        self.dataset = dataset
        self.project = Project(options)
        self.lines: list[str] = []
        self.failing: dict[str, int] = {}
        """Exit code by the first word of a command that is to fail after it has written half of its result."""
        self.raising: dict[str, BaseException] = {}
        """What to raise in its place, by the same word."""
        self.record: dict[str, Any] = {}
        """What the record of every pseudo-label says besides."""
        self.content = "first"
        """What the results are made of: with another word they are others."""

    def __call__(self, command: Sequence[str], log: Path, lock: Path) -> int:
        name = command[0]
        self.lines.append(shlex.join(command))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(self.lines[-1] + "\n")
        files = self._files(name, command)
        if name in self.failing or name in self.raising:
            self._write(files[: len(files) // 2])
            if name in self.raising:
                raise self.raising[name]
            return self.failing[name]
        self._write(files)
        if name == "sfr_plan_and_preprocess":
            self._plan_sam(command)
        return 0

    def taken(self) -> list[str]:
        """The first words of the commands since the last call of this."""
        words = [
            " ".join(line.split()[:1] + [word for word in line.split() if word.startswith("--")]) for line in self.lines
        ]
        self.lines.clear()
        return words

    def _files(self, name: str, command: Sequence[str]) -> list[Path]:
        project = self.project
        round_index = int(command[command.index("--round") + 1]) if "--round" in command else 0
        trainer = command[command.index("-tr") + 1] if "-tr" in command else ""
        if name == "sfr_finetune":
            return [project.optimizer(round_index), project.adapter(round_index)]
        if name == "sfr_pseudolabel":
            return project.store_files(project.store(round_index, of_model=bool(trainer)))
        if name == "sfr_crosscheck":
            return [project.paths.crosscheck_result]
        if name == "sfr_select":
            return [project.selection(round_index)]
        if name == "nnUNetv2_train":
            folder = project.training(trainer)
            return self._training(folder, command)
        if name == "nnUNetv2_predict":
            files = project.predicted_files()
            return [files[0].with_name("predict_from_raw_data_args.json"), *files]
        return []

    def _plan_sam(self, command: Sequence[str]) -> None:
        """Write what is asked for of SAM into the plan, as the command does."""
        options = {"-sam": "model", "-adaptation": "adaptation", "-checkpoint": "checkpoint"}
        asked = {key: command[command.index(option) + 1] for option, key in options.items() if option in command}
        if "checkpoint" in asked:
            asked["checkpoint"] = str(Path(asked["checkpoint"]).resolve())
        if asked:
            change_settings(self.dataset, {"sam": asked})

    def _training(self, folder: Path, command: Sequence[str]) -> list[Path]:
        summary = folder / "validation" / "summary.json"
        if "--val" in command:
            return [summary]
        latest, *final = (folder / f"checkpoint_{name}.pth" for name in ("latest", "final", "teacher"))
        return [latest, folder.parent / "plans.json", *final, summary]

    def _write(self, files: Sequence[Path]) -> None:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            made_by = {"source": f"{self.content} {file.name}"}
            file.write_text(json.dumps({"made_by": made_by, "grid": {}, **self.record}))


def go(fake: FakeCommands) -> list[str]:
    """One call of sfr_run; what it ran."""
    run_steps(fake.project.options, "sfr_run", fake)
    return fake.taken()


def set_time(file: Path, seconds: float) -> None:
    os.utime(file, (seconds, seconds))
