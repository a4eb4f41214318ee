"""The commands of the path as they are typed: the one place that knows their options."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nnunet_sfr.paths import Fold, SFRPaths

DEFAULT_PLANS, DEFAULT_CONFIGURATION = "nnUNetPlans", "3d_fullres"
"""nnU-Net's own plans, and the configuration that is meant where none is named."""

AUTO = "auto"
"""The value of ``-device`` that our commands know and nnU-Net's do not."""

Command = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CommandLines:
    """The commands for one data set, plan, configuration and fold, with everything else that a run was given.

    >>> shown(CommandLines(dataset="42", configuration="3d_fullres", fold="all").fine_tune())
    'sfr_finetune -d 42 -c 3d_fullres -f all'

    Args:
        dataset: number or name, as it is typed after ``-d``.
        configuration: nnU-Net's.
        fold: nnU-Net's.
        plans: nnU-Net's plans identifier; left out where it is nnU-Net's default.
        device: after ``-device``; ``auto`` is left out.
        num_gpus: for ``nnUNetv2_train``; 1 is left out.
        processes: that read, preprocess and export; None leaves them out.
    """

    dataset: str
    configuration: str
    fold: Fold
    plans: str = DEFAULT_PLANS
    device: str = AUTO
    num_gpus: int = 1
    processes: int | None = None

    @classmethod
    def of(cls, paths: SFRPaths, fold: Fold, device: str = AUTO) -> CommandLines:
        """The commands for a planned configuration.

        Args:
            paths: of it.
            fold: nnU-Net's.
            device: after ``-device``.
        """
        return cls(
            dataset=dataset_number(paths.dataset_name),
            configuration=paths.configuration,
            fold=fold,
            plans=paths.plans_name,
            device=device,
        )

    # --- ours ---

    def plan(self, *options: str) -> Command:
        """``sfr_plan_and_preprocess``; a planner, the name of its plans and all else come with ``options``."""
        case = ("-d", self.dataset, "-c", self.configuration)
        workers = self._workers("-np", "-npfp")
        return ("sfr_plan_and_preprocess", *case, *options, *workers)

    def fine_tune(self, round_index: int = 0) -> Command:
        return ("sfr_finetune", *self._case, *_round(round_index), *self._device)

    def pseudo_label(self, round_index: int = 0, trainer: str | None = None) -> Command:
        """``sfr_pseudolabel``.

        Args:
            round_index: 0, or that of a round of SFR+.
            trainer: of the model that labels; None for SAM.
        """
        model = () if trainer is None else ("-tr", trainer)
        return ("sfr_pseudolabel", *self._case, *_round(round_index), *self._device, *model)

    def crosscheck(self, *, with_nnunet: bool = False) -> Command:
        """``sfr_crosscheck``.

        Args:
            with_nnunet: beside SAM.
        """
        case = ("-d", self.dataset, "-c", self.configuration, *self._plans, *self._device)
        return ("sfr_crosscheck", *case, *(("--with-nnunet",) if with_nnunet else ()))

    def select(self, round_index: int, *options: str) -> Command:
        return ("sfr_select", *self._case, *_round(round_index), *options)

    def report(self) -> Command:
        return ("sfr_report", *self._case)

    def doctor(self) -> Command:
        return ("sfr_doctor", *self._case, *self._device)

    def run(self, *options: str) -> Command:
        """``sfr_run``, with any options about method, rounds and prediction."""
        gpus = ("-num_gpus", str(self.num_gpus)) if self.num_gpus > 1 else ()
        return ("sfr_run", *self._case, *self._device, *gpus, *self._workers("-np"), *options)

    # --- nnU-Net's ---

    def train(self, trainer: str) -> Command:
        gpus = ("-num_gpus", str(self.num_gpus)) if self.num_gpus > 1 else ()
        return (*self._training(trainer), *gpus)

    def validate(self, trainer: str) -> Command:
        return (*self._training(trainer), "--val")

    def predict(self, trainer: str, images: str | Path, predictions: str | Path) -> Command:
        """nnU-Net's prediction with a trained model.

        Args:
            trainer: of the model.
            images: folder with the images to predict.
            predictions: folder to write to.
        """
        folders = ("-i", str(images), "-o", str(predictions))
        case = ("-d", self.dataset, "-c", self.configuration, "-f", str(self.fold))
        return ("nnUNetv2_predict", *folders, *case, *self._model(trainer), *self._workers("-npp", "-nps"))

    # --- parts ---

    @property
    def _case(self) -> Command:
        return ("-d", self.dataset, "-c", self.configuration, "-f", str(self.fold), *self._plans)

    @property
    def _plans(self) -> Command:
        return () if self.plans == DEFAULT_PLANS else ("-p", self.plans)

    @property
    def _device(self) -> Command:
        return () if self.device == AUTO else ("-device", self.device)

    def _workers(self, *names: str) -> Command:
        return () if self.processes is None else tuple(word for name in names for word in (name, str(self.processes)))

    def _training(self, trainer: str) -> Command:
        return ("nnUNetv2_train", self.dataset, self.configuration, str(self.fold), *self._model(trainer))

    def _model(self, trainer: str) -> Command:
        return ("-tr", trainer, *self._plans, *self._device)


def shell_text(command: Iterable[str]) -> str:
    """A command as text that a shell can run."""
    return shlex.join(command)


def dataset_number(dataset_name: str) -> str:
    """What is typed after ``-d``: the number in nnU-Net's name of a data set."""
    return str(int(dataset_name.removeprefix("Dataset").partition("_")[0]))


def _round(round_index: int) -> Command:
    return ("--round", str(round_index)) if round_index else ()
