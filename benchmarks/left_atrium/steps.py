"""The steps of a study; each is left out when an earlier call has finished it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.left_atrium.study import CONFIGURATION, DATASET_ID, FOLD, ROOTS, STOCK, Project, Study, Workspace
from nnunet_sfr.atomic import write_json
from nnunet_sfr.conversion.left_atrium import open_source
from nnunet_sfr.conversion.raw_dataset import convert_source
from nnunet_sfr.conversion.source import Request
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS

REPOSITORY = Path(__file__).resolve().parent.parent.parent


class Steps:
    """Runs what is missing of one study.

    Args:
        study: what to run.
        workspace: where.
        threads: of torch, in each process.
    """

    def __init__(self, study: Study, workspace: Workspace, threads: int) -> None:
        self.study = study
        self.workspace = workspace
        self.threads = threads

    # --- what all runs share ---

    def prepare(self, *, with_sam: bool) -> None:
        """Data set and plan; SAM and its labels where a trainer wants them. Calls of the same study wait here."""
        base = self.workspace.base
        base.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(base.folder / "data.lock"):
            if not base.raw_dataset.is_dir():
                convert(Path(self.study.source), base.raw_dataset, labelled=self.study.labelled)
            if not base.sfr_plan.is_file():
                self._plan(base)
        if with_sam:
            with FileLock(base.folder / "sam.lock"):
                self._timed("sam", base, ["sfr_finetune", *self._case, *self._on])
                self._timed("labels", base, ["sfr_pseudolabel", *self._case, *self._on])

    def _plan(self, base: Project) -> None:
        command = ["sfr_plan_and_preprocess", "-d", str(DATASET_ID), "-c", CONFIGURATION, "-pl", self.study.planner]
        command += ["-sam", self.study.sam]
        if self.study.adaptation is not None:
            command += ["-adaptation", self.study.adaptation]
        if self.study.spacing is not None:
            command += ["-overwrite_target_spacing", *[f"{self.study.spacing:g}"] * 3]
        self._run(base, command)
        sam = self.study.sam_iterations
        if sam is not None:
            changes = {"iterations": sam, "warmup_iterations": sam // 8, "validation_every": max(1, sam // 2)}
            change_settings(base.sfr_plan, {"fine_tuning": changes})

    # --- one trainer, one seed ---

    def run(self, trainer: str, seed: int) -> None:
        """Train with one seed, predict the test cases and write the record, if nobody else has done or is doing it."""
        folder = self.workspace.run(trainer, seed).folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder.with_suffix(".lock"), timeout=0):
                self._run_alone(trainer, seed)
        except Timeout:
            print(f"[{folder.parent.name}/{trainer}] another process is at it; left to that one", flush=True)

    def _run_alone(self, trainer: str, seed: int) -> None:
        record = self.workspace.record(trainer, seed)
        if record.is_file():
            return
        project = self._copy_of_base(trainer, seed)
        predictions = self.workspace.predictions(trainer, seed)
        if trainer in ROUND_TRAINERS:
            measured = self._rounds(trainer, project, predictions)
        else:
            measured = [self._train(project, self._in_full(trainer, self.study.epochs), "training", predictions)]
        write_json({"trainer": trainer, "seed": seed, **combined(measured)}, record)

    def _copy_of_base(self, trainer: str, seed: int) -> Project:
        """The base with hard links for files: whatever is changed is written anew and renamed."""
        project = self.workspace.run(trainer, seed)
        if not project.folder.is_dir():
            temporary = project.folder.with_name(f".{trainer}")
            shutil.rmtree(temporary, ignore_errors=True)
            # another process may be at work on SAM and its labels, which not every trainer reads
            folders, left_out = (ROOTS[1:], ()) if needs_sam(trainer) else (ROOTS[1:2], ("pseudo_labels",))
            for name in folders:
                source = self.workspace.base.folder / name
                ignored = shutil.ignore_patterns(*left_out)
                shutil.copytree(source, temporary / name, copy_function=os.link, ignore=ignored)
            temporary.rename(project.folder)
        schedule = {
            "seed": seed,
            "iterations_per_epoch": self.study.iterations_per_epoch,
            "validation_iterations_per_epoch": self.study.validation_iterations_per_epoch,
        }
        change_settings(project.sfr_plan, {"retraining": schedule})
        return project

    def _rounds(self, trainer: str, project: Project, predictions: Path) -> list[Mapping[str, Any]]:
        """SFR+ from round 0 on; the share of each round in the iterations is the study's."""
        before = self._in_full(trainer.replace("SFRPlus", "SFR"), self.study.epochs_of_round(0))
        measured = [self._train(project, before, "round_0_training", None)]
        for index in range(1, self.study.rounds + 1):
            of_round = [*self._case, "--round", str(index)]
            self._timed(f"round_{index}_model", project, ["sfr_pseudolabel", *of_round, *self._on, "-tr", before])
            self._timed(f"round_{index}_choice", project, ["sfr_select", *of_round])
            self._timed(f"round_{index}_sam", project, ["sfr_finetune", *of_round, *self._on])
            self._timed(f"round_{index}_labels", project, ["sfr_pseudolabel", *of_round, *self._on])
            suffix = "" if index == 1 else f"_round{index}"
            before = self._in_full(trainer + suffix, self.study.epochs_of_round(index))
            last = predictions if index == self.study.rounds else None
            measured.append(self._train(project, before, f"round_{index}_training", last))
        return measured

    def _train(self, project: Project, trainer: str, step: str, predictions: Path | None) -> Mapping[str, Any]:
        record = project.folder / f"{step}.json"
        if not record.is_file() or (predictions is not None and not predictions.is_dir()):
            command = [sys.executable, "-m", "benchmarks.left_atrium.training", trainer, str(record)]
            command += ["--plans", self.study.plans, "--epochs", str(self.study.epochs)]
            command += ["--device", self.study.device, "--threads", str(self.threads)]
            self._run(project, command if predictions is None else [*command, "--predictions", str(predictions)])
        return read_json(record, "delete it to train again")

    @staticmethod
    def _in_full(trainer: str, epochs: int) -> str:
        return trainer if trainer == STOCK else f"{trainer}_{epochs}epochs"

    # --- commands ---

    @property
    def _case(self) -> list[str]:
        return ["-d", str(DATASET_ID), "-c", CONFIGURATION, "-p", self.study.plans, "-f", FOLD]

    @property
    def _on(self) -> list[str]:
        return ["-device", self.study.device]

    def _timed(self, step: str, project: Project, command: Sequence[str]) -> None:
        """Run a command once and note its seconds; of a command that was stopped, those of the last call."""
        record = project.folder / f"{step}.json"
        if not record.is_file():
            start = time.perf_counter()
            self._run(project, command)
            write_json({"seconds": time.perf_counter() - start}, record)

    def _run(self, project: Project, command: Sequence[str]) -> None:
        print(f"[{project.folder.parent.name}/{project.folder.name}] {shlex.join(command)}", flush=True)
        code = subprocess.run(command, env=self.environment(project), cwd=REPOSITORY, check=False).returncode
        if code != 0:
            raise UserError(f"{command[0]} failed with exit code {code}; its messages are above")

    def environment(self, project: Project) -> dict[str, str]:
        """Of the commands: nnU-Net's folders, no more processes and threads than asked for."""
        ours = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
        if self.study.device == "cuda":
            ours = {}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        modules = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        return {**ours, **os.environ, **project.roots, **threads, "PATH": path, "PYTHONPATH": modules}


def convert(source: Path, dataset: Path, *, labelled: int) -> None:
    convert_source(open_source(Request(source, labelled)), dataset)


def needs_sam(trainer: str) -> bool:
    """Whether a trainer learns from SAM's labels."""
    return trainer in ROUND_TRAINERS or (trainer in TRAINERS and "SFR" in trainer)


def combined(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of the trainings of all rounds: seconds added up, the highest peak, the circumstances of the last."""
    return {
        **measured[-1],
        "seconds": sum(part["seconds"] for part in measured),
        "median_step_seconds": [part["median_step_seconds"] for part in measured],
        "peak_memory_bytes": max(part["peak_memory_bytes"] for part in measured),
        "resumed": any(part["resumed"] for part in measured),
    }


def change_settings(sfr_plan: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change settings in the SFR plan, as a user does with an editor."""
    content = read_json(sfr_plan, "sfr_plan_and_preprocess should have written it")
    sections = content["configurations"][CONFIGURATION]
    for section, settings in changes.items():
        sections.setdefault(section, {}).update(settings)
    write_json(content, sfr_plan)
