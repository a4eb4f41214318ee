"""What ``sfr_run`` was asked for, and the names that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_sfr.command_lines import AUTO, DEFAULT_CONFIGURATION, DEFAULT_PLANS, CommandLines
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import TRAINER_PREFIX, DatasetPaths, Fold, RunPaths
from nnunet_sfr.planner_names import DEFAULT_PLANNER, PLANS_OF_PLANNERS
from nnunet_sfr.plans import choose_plans
from nnunet_sfr.trainers.methods import DEFAULT_METHOD
from nnunet_sfr.trainers.methods import METHODS as KNOWN_METHODS

METHODS = tuple(KNOWN_METHODS)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One call of ``sfr_run``; ``--help`` says what each means."""

    dataset: str
    """Number or name, as it was given."""
    dataset_name: str
    """nnU-Net's full name of it."""
    configuration: str = DEFAULT_CONFIGURATION
    fold: Fold = "all"
    method: str = DEFAULT_METHOD
    epochs: int | None = None
    rounds: int = 0
    """Rounds of SFR+ after SFR."""
    planner: str | None = None
    """As it was given; None for the one that the plan was made with, or nnU-Net's default."""
    plans: str = DEFAULT_PLANS
    sam: str | None = None
    adaptation: str | None = None
    checkpoint: str | None = None
    target_spacing: tuple[float, ...] | None = None
    images: Path | None = None
    predictions: Path | None = None
    device: str = AUTO
    num_gpus: int = 1
    processes: int | None = None
    accept_empty_labels: bool = False
    """Whether to train on pseudo-labels that are mostly empty, or lack a class."""
    crosscheck: bool = False
    """Whether to cross-check SAM before the first training."""
    with_nnunet: bool = False
    """Whether the cross-check trains plain nnU-Net beside SAM."""
    selection: tuple[str, ...] = ()
    """Options for sfr_select."""

    def trainer(self, round_index: int = 0) -> str:
        """The trainer of a round: round 0 is SFR's, and the first of SFR+ has no number."""
        stage = "SFR" if round_index == 0 else "SFRPlus"
        number = f"_round{round_index}" if round_index > 1 else ""
        epochs = f"_{self.epochs}epochs" if self.epochs is not None else ""
        return f"{TRAINER_PREFIX}{stage}_{self.method}{number}{epochs}"

    @property
    def command_lines(self) -> CommandLines:
        """The commands of the path with everything that this run was given."""
        names = ("dataset", "configuration", "fold", "plans", "device", "num_gpus", "processes")
        return CommandLines(**{name: getattr(self, name) for name in names})

    @property
    def paths(self) -> RunPaths:
        """One run for any number of rounds, so that a later call can add some."""
        first = self.trainer(min(self.rounds, 1)).removeprefix(TRAINER_PREFIX)
        return RunPaths(self.dataset_name, self.plans, self.configuration, self.fold, first)


def plans_name(planner: str | None, plans: str | None, paths: DatasetPaths | None = None) -> str:
    """The name of the plans, as given or the planner's own, or that of the only plans that there are.

    Args:
        planner: after ``-pl``; None where it was left out.
        plans: after ``-p``; None where it was left out.
        paths: of the data set; None for one without plans.

    Raises:
        UserError: a planner whose plans' name we do not know, or several plans to choose from.
    """
    if planner is None and plans is None and paths is not None:
        return choose_plans(paths, None)
    planner = planner or DEFAULT_PLANNER
    if plans is None and planner not in PLANS_OF_PLANNERS:
        raise UserError(f"-pl {planner}: name its plans with -p, too; known: {', '.join(PLANS_OF_PLANNERS)}")
    return plans or PLANS_OF_PLANNERS[planner]
