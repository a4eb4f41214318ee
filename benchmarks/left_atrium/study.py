"""What is run, and where it lies: one folder for each number of labelled cases and target spacing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_sfr.atomic import write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import model_name
from nnunet_sfr.pipeline.options import plans_name
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS

DATASET_ID, DATASET_NAME = 120, "Dataset120_LA"
CONFIGURATION = "3d_fullres"
FOLD = "all"
STOCK = "nnUNetTrainer"
ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
KNOWN_TRAINERS = (STOCK, *TRAINERS, *ROUND_TRAINERS)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that the numbers depend on, seeds aside; the same for every trainer of a table.

    Args:
        source: folder that ``sfr_convert LA`` reads, absolute.
        labelled: number of labelled cases.
        spacing: target spacing in mm, None for the planner's choice.
        iterations: of every re-training, the rounds of SFR+ taken together.
        iterations_per_epoch: a divisor of ``iterations``.
        validation_iterations_per_epoch: batches that estimate the Dice after each epoch.
        sam: name of the SAM.
        adaptation: how it is fine-tuned, None for what was planned.
        sam_iterations: of SAM's fine-tuning, None for what was planned.
        rounds: of SFR+ after round 0.
        planner: nnU-Net planner.
        device: where to compute.
    """

    source: str
    labelled: int
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

    @property
    def plans(self) -> str:
        """The plans identifier that the planner gives."""
        return plans_name(self.planner, None)

    @property
    def name(self) -> str:
        spacing = "planned_spacing" if self.spacing is None else f"{self.spacing:g}mm"
        return f"{self.labelled}_labelled_{spacing}"

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


@dataclass(frozen=True)
class Project:
    """nnU-Net's three folders; the raw one is shared by all seeds and trainers.

    Args:
        folder: of the preprocessed data and results.
        raw: folder ``nnUNet_raw``.
        plans: plans identifier.
    """

    folder: Path
    raw: Path
    plans: str

    @property
    def roots(self) -> Mapping[str, str]:
        """nnU-Net's variables."""
        return dict(zip(ROOTS, map(str, (self.raw, self.folder / ROOTS[1], self.folder / ROOTS[2])), strict=True))

    @property
    def raw_dataset(self) -> Path:
        return self.raw / DATASET_NAME

    @property
    def preprocessed(self) -> Path:
        return self.folder / ROOTS[1] / DATASET_NAME

    @property
    def sfr_plan(self) -> Path:
        return self.preprocessed / f"{self.plans}_SFRPlans.json"

    def model(self, trainer: str) -> Path:
        """Model folder of a trainer, named in full."""
        return self.folder / ROOTS[2] / DATASET_NAME / model_name(trainer, self.plans, CONFIGURATION)


@dataclass(frozen=True)
class Workspace:
    """The folders of one study.

    Args:
        folder: of the study.
        plans: plans identifier.
    """

    folder: Path
    plans: str

    @property
    def base(self) -> Project:
        """What all seeds start from: data, plan, SAM and its labels."""
        return Project(self.folder / "base", self.folder / "base" / ROOTS[0], self.plans)

    def run(self, trainer: str, seed: int) -> Project:
        """A copy of the base for one trainer and seed: later rounds of SFR+ belong to a data set, not to a method."""
        return Project(self.folder / f"seed_{seed}" / trainer, self.base.raw, self.plans)

    def record(self, trainer: str, seed: int) -> Path:
        """What a finished run measured."""
        return self.run(trainer, seed).folder / "record.json"

    def predictions(self, trainer: str, seed: int) -> Path:
        return self.run(trainer, seed).folder / "predictions"

    def seeds(self, trainer: str) -> list[int]:
        """Seeds of the finished runs of a trainer."""
        files = self.folder.glob(f"seed_*/{trainer}/record.json")
        return sorted(int(re.sub(r"\D", "", file.parent.parent.name)) for file in files)


def open_workspace(output: Path, study: Study) -> Workspace:
    """The study's folder, new or of an earlier call.

    Raises:
        UserError: an earlier call ran another study under this name.
    """
    study.check()
    folder = output / study.name
    file = folder / "study.json"
    wanted = asdict(study)
    if file.is_file():
        there = read_json(file, f"delete {folder} to begin anew")
        changed = sorted(key for key in wanted if there.get(key) != wanted[key])
        if changed:
            before = ", ".join(f"{key} {there.get(key)}" for key in changed)
            raise UserError(f"{folder}: was begun with another study ({before}); choose another --output")
    else:
        write_json(wanted, file)
    return Workspace(folder, study.plans)
