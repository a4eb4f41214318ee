"""What is run, and where it lies: one folder for each number of labelled cases, target spacing, choice of cases, and
for a SAM that is the same for all seeds or not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.workspace import ROOTS, ProjectFolders
from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import as_json, read_json
from nnunet_sfr.pipeline.options import plans_name
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS

FOLD = "all"
STOCK = "nnUNetTrainer"
ALL_LABELS = "nnUNetTrainer_all_labels"
"""nnU-Net's trainer with the labels of all cases to train on: what the share of the gap is measured by."""
KNOWN_TRAINERS = (STOCK, *TRAINERS, *ROUND_TRAINERS, ALL_LABELS)
NUMBER, NUMBER_OF_ALL = 120, 121
"""Of the data set with few labels and of that with all, in folders of the study alone."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that the numbers depend on, seeds of the trainings aside; the same for every trainer of a table.

    Args:
        dataset: name that ``sfr_convert`` takes.
        source: what ``sfr_convert`` reads, absolute if it is a folder.
        labelled: number of labelled cases.
        cases_seed: draws them; None for the first of the list.
        allow_missing: go without cases of the list.
        options: of ``sfr_convert``, that only some data sets have.
        spacing: target spacing in mm, None for the planner's choice.
        iterations: of every re-training, the rounds of SFR+ taken together.
        iterations_per_epoch: a divisor of ``iterations``.
        validation_iterations_per_epoch: batches that estimate the Dice after each epoch.
        sam: name of the SAM.
        adaptation: how it is fine-tuned, None for what was planned.
        sam_iterations: of SAM's fine-tuning, None for what was planned.
        sam_per_seed: fine-tune SAM for each seed, with that seed; else once, with the planned one.
        rounds: of SFR+ after round 0.
        planner: nnU-Net planner.
        device: where to compute.
    """

    dataset: str = "LA"
    source: str
    labelled: int
    cases_seed: int | None = None
    allow_missing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    spacing: float | None
    iterations: int
    iterations_per_epoch: int
    validation_iterations_per_epoch: int
    sam: str
    adaptation: str | None
    sam_iterations: int | None
    rounds: int
    planner: str
    device: str
    sam_per_seed: bool = False

    @property
    def plans(self) -> str:
        """The plans identifier that the planner gives."""
        return plans_name(self.planner, None)

    @property
    def name(self) -> str:
        """Of its folder: what is most often varied."""
        parts = [f"{self.labelled}_labelled", "planned_spacing" if self.spacing is None else f"{self.spacing:g}mm"]
        if self.cases_seed is not None:
            parts.append(f"cases{self.cases_seed}")
        if self.sam_per_seed:
            parts.append("sam_per_seed")
        for option, value in self.options.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            parts.append(option if value is True else option + "".join(f"-{one}" for one in values))
        return "_".join(parts)

    @property
    def epochs(self) -> int:
        return self.iterations // self.iterations_per_epoch

    def epochs_of_round(self, round_index: int) -> int:
        """Epochs of one round of SFR+, so that all rounds together have as many as a run in one go.

        The first round gets what cannot be shared out evenly.
        """
        share = self.epochs // (self.rounds + 1)
        return self.epochs - share * self.rounds if round_index == 0 else share

    def check(self) -> None:
        """Refuse what cannot be divided.

        Raises:
            UserError: the iterations do not come out even.
        """
        if self.iterations % self.iterations_per_epoch:
            raise UserError(
                f"--iterations {self.iterations} is no multiple of --iterations-per-epoch {self.iterations_per_epoch}"
            )
        if self.epochs <= self.rounds:
            raise UserError(
                f"--iterations {self.iterations} are {self.epochs} epochs, too few for {self.rounds + 1} rounds; "
                "lower --iterations-per-epoch"
            )

    def as_json(self) -> dict[str, Any]:
        """Every field, as JSON has it."""
        return as_json(asdict(self))


@dataclass(frozen=True)
class StudyFolders:
    """The folders of one study.

    Args:
        folder: of the study.
        plans: plans identifier.
        name: of the data set, behind its number.
    """

    folder: Path
    plans: str
    name: str = "LA"

    @property
    def base(self) -> ProjectFolders:
        """What all seeds start from: data, plan, SAM and its labels."""
        return self._project(self.folder / "base")

    @property
    def base_of_all(self) -> ProjectFolders:
        """The data set in which every case to train on is labelled, planned as the base."""
        return self._project(self.folder / "base", NUMBER_OF_ALL)

    def base_of_seed(self, seed: int) -> ProjectFolders:
        """A copy of the base with a SAM of this seed and its labels."""
        return self._project(self.folder / f"seed_{seed}" / "base")

    def bases_with_sam(self, study: Study) -> list[ProjectFolders]:
        """Where SAM was fine-tuned or is to be: the base, or that of each seed that has one."""
        if not study.sam_per_seed:
            return [self.base]
        folders = self.folder.glob("seed_*/base")
        return [self.base_of_seed(seed) for seed in sorted(_seed_of(folder) for folder in folders)]

    def run(self, trainer: str, seed: int) -> ProjectFolders:
        """A copy of the base for one trainer and seed: later rounds of SFR+ belong to a data set, not to a method."""
        number = NUMBER_OF_ALL if trainer == ALL_LABELS else NUMBER
        return self._project(self.folder / f"seed_{seed}" / trainer, number)

    def record(self, trainer: str, seed: int) -> Path:
        """What a finished run measured."""
        return self.run(trainer, seed).folder / "record.json"

    def predictions(self, trainer: str, seed: int) -> Path:
        return self.run(trainer, seed).folder / "predictions"

    def seeds(self, trainer: str) -> list[int]:
        """Seeds of the finished runs of a trainer."""
        return sorted(_seed_of(file.parent) for file in self.folder.glob(f"seed_*/{trainer}/record.json"))

    def _project(self, folder: Path, number: int = NUMBER) -> ProjectFolders:
        suffix = "_all_labels" if number == NUMBER_OF_ALL else ""
        return ProjectFolders(
            folder, self.folder / "base" / ROOTS[0], self.plans, f"Dataset{number:03d}_{self.name}{suffix}"
        )


def _seed_of(run: Path) -> int:
    return int(re.sub(r"\D", "", run.parent.name))


def open_workspace(output: Path, study: Study) -> StudyFolders:
    """The study's folder, new or of an earlier call.

    Raises:
        UserError: an earlier call ran another study under this name.
    """
    study.check()
    folder = output / study.name
    file = folder / "study.json"
    wanted = study.as_json()
    if file.is_file():
        there = with_defaults(read_json(file, f"delete {folder} to begin again"))
        changed = sorted(key for key in wanted if there.get(key) != wanted[key])
        if changed:
            before = ", ".join(f"{key} {there.get(key)}" for key in changed)
            raise UserError(f"{folder}: was begun with another study ({before}); choose another --output")
    else:
        write_json(wanted, file)
    return StudyFolders(folder, study.plans, study.dataset)


def with_defaults(study: Mapping[str, Any]) -> dict[str, Any]:
    """A study as JSON has it, with the fields that earlier versions did not know.

    Args:
        study: of any version.
    """
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(Study)
        if one.default is not MISSING or one.default_factory is not MISSING
    }
    return {**defaults, **study}
