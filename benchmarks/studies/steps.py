"""The steps of a study; each is left out when an earlier call has finished it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.studies.all_labels import link_all_labels
from benchmarks.studies.study import ALL_LABELS, FOLD, STOCK, Study, StudyFolders
from benchmarks.workspace import CONFIGURATION, ROOTS, ProjectFolders, change_settings, process_environment
from benchmarks.workspace import run_public_command as run_in_process
from nnunet_sfr.atomic import write_json
from nnunet_sfr.conversion import PUBLIC_DATASETS
from nnunet_sfr.conversion.raw_dataset import convert_source
from nnunet_sfr.conversion.source_dataset import ConversionRequest
from nnunet_sfr.errors import StepError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import DATASET_JSON, FINGERPRINT
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS


class Steps:
    """Runs what is missing of one study.

    Args:
        study: what to run.
        workspace: where.
        threads: of torch, in each process.
    """

    def __init__(self, study: Study, workspace: StudyFolders, threads: int) -> None:
        self.study = study
        self.workspace = workspace
        self.threads = threads

    # --- what all runs share ---

    def prepare(self, *, with_sam: bool, with_all_labels: bool = False) -> None:
        """Data set and plan; what some trainers want beside it. Calls of the same study wait here.

        Args:
            with_sam: fine-tune SAM, and let it label the pool, unless each seed has its own.
            with_all_labels: preprocess the data set in which every case is labelled.
        """
        base = self.workspace.base
        base.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(base.folder / "data.lock"):
            if not base.raw_dataset.is_dir():
                convert(self.study, base.raw_dataset)
            if not base.sfr_plan.is_file():
                self._plan(base)
        if with_all_labels:
            with FileLock(base.folder / "all_labels.lock"):
                self._prepare_all_labels(base)
        if with_sam and not self.study.sam_per_seed:
            with FileLock(base.folder / "sam.lock"):
                self._let_sam_label(base)

    def _let_sam_label(self, project: ProjectFolders) -> None:
        self._timed("sam", project, ["sfr_finetune", *self._case, *self._on])
        self._timed("labels", project, ["sfr_pseudolabel", *self._case, *self._on])

    def _plan(self, base: ProjectFolders) -> None:
        command = ["sfr_plan_and_preprocess", "-d", base.number, "-c", CONFIGURATION, "-pl", self.study.planner]
        command += ["-sam", self.study.sam]
        if self.study.adaptation is not None:
            command += ["-adaptation", self.study.adaptation]
        if self.study.spacing is not None:
            command += ["-overwrite_target_spacing", *[f"{self.study.spacing:g}"] * 3]
        self._run(base, command)
        sam = self.study.sam_iterations
        if sam is not None:
            changes = {"iterations": sam, "warmup_fraction": 0.125, "validation_every": max(1, sam // 2)}
            change_settings(base.sfr_plan, {"fine_tuning": changes})

    def _prepare_all_labels(self, base: ProjectFolders) -> None:
        """The plan of the base, so that nothing but the number of labels differs."""
        full, plans = self.workspace.base_of_all, self.study.plans
        link_all_labels(base.raw_dataset, full.raw_dataset)
        full.preprocessed.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(full.raw_dataset / DATASET_JSON, full.preprocessed / DATASET_JSON)
        # nnU-Net's training copies it beside its checkpoints; the plan was made from it
        shutil.copyfile(base.preprocessed / FINGERPRINT, full.preprocessed / FINGERPRINT)
        move = ["-s", base.number, "-t", full.number, "-sp", plans, "-tp", plans]
        self._timed("all_labels_plan", base, ["nnUNetv2_move_plans_between_datasets", *move])
        preprocess = ["-d", full.number, "-plans_name", plans, "-c", CONFIGURATION, "-np", "1"]
        self._timed("all_labels_preprocessed", base, ["nnUNetv2_preprocess", *preprocess])

    # --- one trainer, one seed ---

    def run(self, trainer: str, seed: int) -> None:
        """Train with one seed, predict the test cases and write the record, unless another process does or has."""
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
            measured = self._rounds(trainer, project, predictions, seed)
        else:
            whole = self._in_full(trainer, self.study.epochs)
            measured = [self._train(project, whole, "training", predictions, seed)]
        write_json({"trainer": trainer, "seed": seed, **combined(measured)}, record)

    def _base(self, trainer: str, seed: int) -> ProjectFolders:
        """What a run starts from: of trainers that read SAM's labels, that of the seed where each has a SAM."""
        base = self.workspace.base
        if not (self.study.sam_per_seed and needs_sam(trainer)):
            return base
        of_seed = self.workspace.base_of_seed(seed)
        with FileLock(of_seed.folder.with_suffix(".lock")):
            copy_project(base, of_seed, ROOTS[1:])
            # once it is complete, other processes copy it without the lock
            if not (of_seed.folder / "labels.json").is_file():
                change_settings(of_seed.sfr_plan, {"fine_tuning": {"seed": seed}})
                self._let_sam_label(of_seed)
        return of_seed

    def _copy_of_base(self, trainer: str, seed: int) -> ProjectFolders:
        project = self.workspace.run(trainer, seed)
        base = self._base(trainer, seed)
        if needs_sam(trainer):
            copy_project(base, project, ROOTS[1:])
        else:
            # another process may be at work on SAM and its labels, which this trainer does not read
            copy_project(base, project, ROOTS[1:2], "pseudo_labels")
        if trainer != ALL_LABELS:  # that one has no SFR plan
            change_settings(project.sfr_plan, {"retraining": self._schedule(seed)})
        return project

    def _schedule(self, seed: int) -> dict[str, int]:
        return {
            "seed": seed,
            "iterations_per_epoch": self.study.iterations_per_epoch,
            "validation_iterations_per_epoch": self.study.validation_iterations_per_epoch,
        }

    def _rounds(self, trainer: str, project: ProjectFolders, predictions: Path, seed: int) -> list[Mapping[str, Any]]:
        """SFR+ from round 0 on; the share of each round in the iterations is the study's."""
        before = self._in_full(trainer.replace("SFRPlus", "SFR"), self.study.epochs_of_round(0))
        measured = [self._train(project, before, "round_0_training", None, seed)]
        for index in range(1, self.study.rounds + 1):
            of_round = [*self._case, "--round", str(index)]
            self._timed(f"round_{index}_model", project, ["sfr_pseudolabel", *of_round, *self._on, "-tr", before])
            self._timed(f"round_{index}_choice", project, ["sfr_select", *of_round])
            self._timed(f"round_{index}_sam", project, ["sfr_finetune", *of_round, *self._on])
            self._timed(f"round_{index}_labels", project, ["sfr_pseudolabel", *of_round, *self._on])
            suffix = "" if index == 1 else f"_round{index}"
            before = self._in_full(trainer + suffix, self.study.epochs_of_round(index))
            last = predictions if index == self.study.rounds else None
            measured.append(self._train(project, before, f"round_{index}_training", last, seed))
        return measured

    def _train(
        self, project: ProjectFolders, trainer: str, step: str, predictions: Path | None, seed: int
    ) -> Mapping[str, Any]:
        record = project.folder / f"{step}.json"
        if not record.is_file() or (predictions is not None and not predictions.is_dir()):
            command = [sys.executable, "-m", "benchmarks.studies.training", trainer, str(record)]
            command += ["--dataset", project.number, "--plans", self.study.plans, "--epochs", str(self.study.epochs)]
            for name, value in self._schedule(seed).items():
                command += [f"--{name.replace('_', '-')}", str(value)]
            command += ["--images", str(self.workspace.base.raw_dataset / "imagesTs")]
            command += ["--device", self.study.device, "--threads", str(self.threads)]
            self._run(project, command if predictions is None else [*command, "--predictions", str(predictions)])
        return read_json(record, "delete it to train again")

    @staticmethod
    def _in_full(trainer: str, epochs: int) -> str:
        return STOCK if trainer in (STOCK, ALL_LABELS) else f"{trainer}_{epochs}epochs"

    # --- commands ---

    @property
    def _case(self) -> list[str]:
        return ["-d", self.workspace.base.number, "-c", CONFIGURATION, "-p", self.study.plans, "-f", FOLD]

    @property
    def _on(self) -> list[str]:
        return ["-device", self.study.device]

    def _timed(self, step: str, project: ProjectFolders, command: Sequence[str]) -> None:
        """Run a command once and note its seconds; of a command that was stopped, those of the last call."""
        record = project.folder / f"{step}.json"
        if not record.is_file():
            start = time.perf_counter()
            self._run(project, command)
            write_json({"seconds": time.perf_counter() - start}, record)

    def _run(self, project: ProjectFolders, command: Sequence[str]) -> None:
        print(f"[{project.folder.parent.name}/{project.folder.name}] {shlex.join(command)}", flush=True)
        code = run_in_process(command, self.environment(project))
        if code != 0:
            raise StepError(f"{command[0]} failed with exit code {code}; its messages are above", code)

    def environment(self, project: ProjectFolders) -> dict[str, str]:
        """Of the commands: nnU-Net's folders, no more processes and threads than asked for."""
        return process_environment(project.roots, threads=self.threads, gpu_defaults=self.study.device == "cuda")


def convert(study: Study, dataset: Path) -> None:
    """Build the raw data set of a study."""
    request = ConversionRequest(
        Path(study.source), study.labelled, study.cases_seed, allow_missing=study.allow_missing, options=study.options
    )
    convert_source(PUBLIC_DATASETS[study.dataset].open(request), dataset)


def copy_project(source: ProjectFolders, target: ProjectFolders, folders: Sequence[str], *left_out: str) -> None:
    """Copy the target's data set with hard links for files, unless it is there.

    Whatever is changed later is written under another name and renamed, so that the source keeps what it has.

    Args:
        source: to copy from.
        target: to make; its folder is there wholly or not at all.
        folders: of :data:`ROOTS`.
        left_out: names of files and folders.
    """
    if target.folder.is_dir():
        return
    temporary = target.folder.with_name(f".{target.folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name in folders:
        before, after = source.folder / name / target.dataset, temporary / name / target.dataset
        if before.is_dir():
            shutil.copytree(before, after, copy_function=os.link, ignore=shutil.ignore_patterns(*left_out))
    temporary.mkdir(parents=True, exist_ok=True)
    temporary.rename(target.folder)


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
