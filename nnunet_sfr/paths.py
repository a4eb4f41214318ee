"""Where everything lies: every file and folder name of nnU-Net and of ours, and the one place that joins them.

The three roots are nnU-Net's own (``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``), read from the
environment when they are used. Below them::

    nnUNet_raw/Dataset042_Name/imagesUl/                       unlabelled images, nnU-Net's file names
    nnUNet_preprocessed/Dataset042_Name/
        nnUNetPlans.json, nnUNetPlans_3d_fullres/              nnU-Net's own
        nnUNetPlans_SFRPlans.json                              what SFR adds to the plan
        .sfr_run.lock, .sfr_run.lock.json                      who works on the data set
        .sfr_run.planning.lock, .sfr_run.planning.lock.json    who writes plans and preprocessed cases
        .sfr_run.step.lock                                     held while a process of a step lives
        nnUNetPlans_3d_fullres_unlabelled/                     unlabelled cases in nnU-Net's format
        pseudo_labels/nnUNetPlans__3d_fullres/fold_all/
            round_0/                                           what the trainers read, whoever made it
            <trainer>_round_1/                                 what a trainer wrote itself
            round_1_model/                                     SFR+: what the re-trained model says before round 1,
            round_1_selection.json                             which cases it is sure of,
            round_1/                                           and what SAM says after learning from those
        sam_views/nnUNetPlans__3d_fullres/                     embedded views of labelled cases, made again when deleted
    nnUNet_results/Dataset042_Name/
        SFR_SAM__nnUNetPlans__3d_fullres/fold_all/round_0/     the fine-tuned SAM (SFR+: and round_1, ...)
        SFR_report__nnUNetPlans__3d_fullres/fold_all/          the page of sfr_report, with its pictures
        SFR_review/                                            sfr_review: progress, label maps that were saved
        SFR_crosscheck__nnUNetPlans__3d_fullres/               sfr_crosscheck:
            crosscheck.json                                    what it found
            fold_0/round_0/, nnunet/                           SAM and nnU-Net without some labelled cases,
            fold_0/left_out/sam/, nnunet/                      and what they make of these
        nnUNetTrainerSFR_MT__nnUNetPlans__3d_fullres/fold_all/ nnU-Net's own
        SFR_run__nnUNetPlans__3d_fullres/
            hashes.json                                        of files that have not changed since
            fold_all/SFR_MT/                                   one run of sfr_run, named after its last trainer:
                state.json, logs/train.log                     what was done, and what each step printed
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import first_names

LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES, TEST_IMAGES = "imagesTr", "labelsTr", "imagesUl", "imagesTs"
TEST_LABELS = "labelsTs"
"""Folders of a raw data set."""

DATASET_JSON, PLANS_JSON, FINGERPRINT = "dataset.json", "plans.json", "dataset_fingerprint.json"
"""nnU-Net's description of a data set and, in a model's folder, of its plan; what it planned from."""
SPLITS = "splits_final.json"
"""nnU-Net's folds."""
SFR_PLANS_ENDING = "_SFRPlans.json"

FINAL_CHECKPOINT, LATEST_CHECKPOINT = "checkpoint_final.pth", "checkpoint_latest.pth"
BEST_CHECKPOINT = "checkpoint_best.pth"
"""nnU-Net's checkpoints of a fold; the final one has the student's weights."""
CHECKPOINTS = (FINAL_CHECKPOINT, LATEST_CHECKPOINT, BEST_CHECKPOINT)
"""Where ``nnUNetv2_train --c`` continues, in the order in which it looks."""
TEACHER_CHECKPOINT = "checkpoint_teacher.pth"
"""The teacher's weights, in nnU-Net's format."""
TRAINING_SETTINGS = "sfr_settings.json"
"""What a training of ours was made with."""
VALIDATION, VALIDATION_SUMMARY = "validation", "summary.json"
"""Folder and result of nnU-Net's validation of a fold."""
PREDICTION_ARGUMENTS = "predict_from_raw_data_args.json"
"""That nnU-Net writes beside predictions whenever it begins to predict."""

FINAL_ADAPTER, BEST_ADAPTER = "adapter_final.safetensors", "adapter_best.safetensors"
"""The trained part of SAM: at the end, and where its validation was best."""
FINAL_OPTIMIZER = "optimizer_final.pt"
"""The optimiser beside the final adapter, with which the next round of SFR+ continues."""
FINE_TUNING_STATE, FINE_TUNING_LOG = "training_state.pt", "fine_tuning_log.json"

MANIFEST = "manifest.json"
"""What a store of pseudo-labels was made with."""

Fold = int | str
"""An nnU-Net fold: a number, or ``"all"`` for every labelled case."""

TRAINER_PREFIX = "nnUNetTrainer"


RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
"""nnU-Net's environment variables."""
CACHE_VARIABLE = "NNUNET_SFR_CACHE"
"""Ours, for the folder of downloads and of what can be made again."""


def is_set(variable: str) -> bool:
    """Whether an nnU-Net environment variable names a folder."""
    return bool(os.environ.get(variable))


def nnunet_root(variable: str) -> Path:
    """The folder that an nnU-Net environment variable names.

    Raises:
        UserError: the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(f"{variable} is not set: export {variable}=<folder>, as nnU-Net's set-up asks for")
    return Path(value)


_DATASET_NAME = re.compile(r"Dataset\d{3}_.+")
_MOST_NAMED = 5


def resolve_dataset_name(dataset_name_or_id: str | int) -> str:
    """nnU-Net's full name of a data set, from the name or the number, found in the raw or preprocessed folder.

    The raw data of a model that is trained can be on another machine, and ``nnUNet_raw`` not be set on this one.

    Args:
        dataset_name_or_id: ``Dataset042_Heart`` (a slash behind it, which shells complete, is passed over) or 42.

    Raises:
        UserError: neither variable is set, or no data set, or more than one, has this number.
    """
    text = str(dataset_name_or_id).rstrip(f"{os.sep}/")
    places = _places()
    if text.startswith("Dataset"):
        names = {name for name in places if name == text}
    else:
        prefix = f"Dataset{_number(text):03d}_"
        names = {name for name in places if name.startswith(prefix)}
    if not names:
        raise UserError(f"no data set {text} in {_where(places)}")
    if len(names) > 1:
        found = ", ".join(f"{name} in {' and '.join(places[name])}" for name in sorted(names))
        raise UserError(f"the number {text} stands for several data sets ({found}); rename all but one")
    return names.pop()


def _places() -> dict[str, list[str]]:
    """The variables in whose folders each data set lies, by its name."""
    variables = [name for name in (RAW, PREPROCESSED) if is_set(name)]
    places: dict[str, list[str]] = {}
    for variable in variables or (RAW,):
        root = nnunet_root(variable)
        for entry in root.iterdir() if root.is_dir() else ():
            if entry.is_dir() and _DATASET_NAME.fullmatch(entry.name):
                places.setdefault(entry.name, []).append(variable)
    return places


def _where(names: dict[str, list[str]]) -> str:
    """The folder that was searched, and what is probably wrong with it."""
    variable = RAW if is_set(RAW) else PREPROCESSED
    root = nnunet_root(variable)
    searched = f"{variable} ({root})"
    if not root.is_dir():
        return f"{searched}, which is no folder; check the variable"
    parent = next((folder for folder in (root, *root.absolute().parents) if _DATASET_NAME.fullmatch(folder.name)), None)
    if parent is not None:
        return f"{searched}, which is a data set or a part of one; export {variable}={parent.absolute().parent}"
    below = next((folder for folder in (root / variable, *sorted(root.glob(f"*/{variable}"))) if folder.is_dir()), None)
    if below is not None:
        return f"{searched}; export {variable}={below}"
    there = first_names(sorted(names), _MOST_NAMED) or "none"
    return f"{searched}; check -d and the variable (there: {there})"


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    name = Path(text).name
    if _DATASET_NAME.fullmatch(name):
        raise UserError(f"-d {text}: takes a number or a name, and no path; give -d {name}")
    raise UserError(f"{text!r} is neither a data set's number nor its name (DatasetXXX_Name)")


def portable_name(path: Path) -> str:
    """A path below one of nnU-Net's folders in words that survive a move of them; any other path as it is."""
    for variable in (PREPROCESSED, RESULTS):
        if path.is_relative_to(nnunet_root(variable)):
            return f"{variable}/{path.relative_to(nnunet_root(variable)).as_posix()}"
    return str(path)


_FOLD, FOLDS_PATTERN = "fold_", "fold_*"
"""How the names of the folders of folds begin, and what all of them match."""


def model_name(trainer: str, plans_name: str, configuration: str) -> str:
    """nnU-Net's name of the folder with all folds of a model.

    Args:
        trainer: name of a trainer class.
        plans_name: of nnU-Net's plan.
        configuration: of that plan.
    """
    return f"{trainer}__{plans_name}__{configuration}"


def fold_name(fold: Fold) -> str:
    """nnU-Net's name of the folder of a fold."""
    return f"{_FOLD}{fold}"


def fold_of(folder: Path) -> str:
    """The fold of a folder that :func:`fold_name` names."""
    return folder.name.removeprefix(_FOLD)


@dataclass(frozen=True)
class DatasetPaths:
    """The paths of a data set that do not depend on a plan.

    Args:
        dataset_name: nnU-Net's full name, ``Dataset042_Name``.
    """

    dataset_name: str

    @property
    def raw(self) -> Path:
        return nnunet_root(RAW) / self.dataset_name

    @property
    def preprocessed(self) -> Path:
        return nnunet_root(PREPROCESSED) / self.dataset_name

    @property
    def results(self) -> Path:
        return nnunet_root(RESULTS) / self.dataset_name

    def raw_is_here(self) -> bool:
        """Whether the raw data are on this machine: a trained model does not need them."""
        return is_set(RAW) and self.raw.is_dir()

    def require_raw(self) -> None:
        """Refuse a data set of which the raw folder is not where ``nnUNet_raw`` says, though others of it may be there.

        Raises:
            UserError: saying what is probably wrong with the variable.
        """
        nnunet_root(RAW)
        if not self.raw.is_dir():
            raise UserError(f"no data set {self.dataset_name} in {_where(_places())}")

    def refuse_raw_folder(self, folder: Path, option: str) -> None:
        """Refuse to write into the folders of the raw data set, where results would pass for images and labels.

        Args:
            folder: to be written to.
            option: that named it.

        Raises:
            UserError: it is one of them.
        """
        if not is_set(RAW):
            return
        for name in (LABELLED_IMAGES, LABELS, UNLABELLED_IMAGES, TEST_IMAGES, TEST_LABELS):
            if folder.resolve().is_relative_to((self.raw / name).resolve()):
                raise UserError(f"{option} {folder}: holds the raw data of {self.dataset_name}; choose another folder")

    @property
    def raw_labelled(self) -> Path:
        return self.raw / LABELLED_IMAGES

    @property
    def raw_labels(self) -> Path:
        return self.raw / LABELS

    @property
    def raw_unlabelled(self) -> Path:
        return self.raw / UNLABELLED_IMAGES

    @property
    def raw_dataset_json(self) -> Path:
        return self.raw / DATASET_JSON

    @property
    def raw_splits_file(self) -> Path:
        """A user's own folds, which nnU-Net's planner copies."""
        return self.raw / SPLITS

    @property
    def dataset_json(self) -> Path:
        """nnU-Net's copy beside the preprocessed cases."""
        return self.preprocessed / DATASET_JSON

    @property
    def fingerprint_file(self) -> Path:
        return self.preprocessed / FINGERPRINT

    @property
    def splits_file(self) -> Path:
        return self.preprocessed / SPLITS

    @property
    def raw_hashes(self) -> Path:
        """Hashes of the raw files, as far as they are known."""
        return self.preprocessed / "sfr_raw_files.json"

    def sfr_plans_files(self) -> list[Path]:
        """The SFR plans that there are, sorted by name."""
        return sorted(self.preprocessed.glob(f"*{SFR_PLANS_ENDING}"))

    def sfr_plans_names(self) -> list[str]:
        """The nnU-Net plans that have an SFR plan, sorted."""
        return [file.name.removesuffix(SFR_PLANS_ENDING) for file in self.sfr_plans_files()]

    @property
    def review(self) -> Path:
        """Folder of ``sfr_review``; its label maps lie on the raw grid, so that all plans share it."""
        return self.results / "SFR_review"

    @property
    def lock(self) -> Path:
        """Locked by who changes the data set."""
        return self.preprocessed / ".sfr_run.lock"

    @property
    def lock_holder(self) -> Path:
        """Who that is, for people."""
        return self.lock.with_name(".sfr_run.lock.json")

    @property
    def planning_lock(self) -> Path:
        """Locked by who writes plans and preprocessed cases."""
        return self.lock.with_name(".sfr_run.planning.lock")

    @property
    def planning_lock_holder(self) -> Path:
        """Who that is, for people."""
        return self.lock.with_name(".sfr_run.planning.lock.json")

    @property
    def step_lock(self) -> Path:
        """Locked as long as a process of a step of sfr_run lives."""
        return self.lock.with_name(".sfr_run.step.lock")


@dataclass(frozen=True)
class SFRPaths(DatasetPaths):
    """Every path of one data set, plan and configuration.

    Args:
        dataset_name: nnU-Net's full name, ``Dataset042_Name``.
        plans_name: nnU-Net's plans identifier, ``nnUNetPlans`` unless the user chose another.
        configuration: nnU-Net's configuration, ``3d_fullres`` for example.
        data_identifier: nnU-Net's name of the folder with the preprocessed labelled cases (from the plan: two
            configurations can share one).
        plane: axis across which patches are cut into slices, for the further ones of several
            (:attr:`nnunet_sfr.dataset.SFRDataset.planes`); None for the first.
        crosscheck: whether its fine-tuned SAMs are those of ``sfr_crosscheck``.
    """

    plans_name: str
    configuration: str
    data_identifier: str
    plane: int | None = None
    crosscheck: bool = False

    @property
    def plans_file(self) -> Path:
        return self.preprocessed / f"{self.plans_name}.json"

    @property
    def sfr_plans_file(self) -> Path:
        return self.preprocessed / f"{self.plans_name}{SFR_PLANS_ENDING}"

    @property
    def labelled(self) -> Path:
        return self.preprocessed / self.data_identifier

    @property
    def unlabelled(self) -> Path:
        return self.preprocessed / f"{self.data_identifier}_unlabelled"

    @property
    def _plan(self) -> str:
        return f"{self.plans_name}__{self.configuration}"

    # --- pseudo-labels and selections ---

    def pseudo_labels(self, fold: Fold, *, trainer: str | None = None, round_index: int = 0) -> Path:
        """Folder of a pseudo-label store.

        Args:
            fold: whose training reads it.
            trainer: of a round that a trainer wrote itself; None for the store that the trainers read, whoever filled
                it (its manifest says who).
            round_index: 0, or the number of the round.
        """
        name = f"round_{round_index}" if trainer is None else f"{trainer}_round_{round_index}"
        return self.all_pseudo_labels(fold) / name

    def model_pseudo_labels(self, fold: Fold, round_index: int) -> Path:
        """Folder of the store with the re-trained model's labels of the pool before an SFR+ round (from 1).

        Args:
            fold: of the labelled cases.
            round_index: from 1 on.
        """
        return self.all_pseudo_labels(fold) / f"round_{round_index}_model"

    def selection(self, fold: Fold, round_index: int) -> Path:
        """File that says which cases the model is sure of in an SFR+ round (from 1).

        Args:
            fold: of the labelled cases.
            round_index: from 1 on.
        """
        return self.all_pseudo_labels(fold) / f"round_{round_index}_selection.json"

    def all_pseudo_labels(self, fold: Fold) -> Path:
        """Folder of all pseudo-label stores and selections of a fold."""
        return self.pseudo_labels_of_folds / fold_name(fold)

    @property
    def pseudo_labels_of_folds(self) -> Path:
        """The folder of :meth:`all_pseudo_labels` of every fold."""
        return self.preprocessed / "pseudo_labels" / self._plan

    @property
    def sam_views(self) -> Path:
        """Folder of what a frozen encoder gave for labelled cases; folds and rounds share them."""
        return self.preprocessed / "sam_views" / self._plan

    def sam_stage(self, fold: Fold, round_index: int = 0) -> Path:
        """Folder of the fine-tuned SAM of one round.

        Args:
            fold: of the labelled cases.
            round_index: 0 for SFR, from 1 on for SFR+.
        """
        of_fold = self.sam_stage_of_folds / fold_name(fold)
        return (of_fold if self.plane is None else of_fold / f"across_{self.plane}") / f"round_{round_index}"

    @property
    def sam_stage_of_folds(self) -> Path:
        """Folder of the fine-tuned SAMs of every fold."""
        return self.crosschecks if self.crosscheck else self.results / f"SFR_SAM__{self._plan}"

    @property
    def crosschecks(self) -> Path:
        """Folder of ``sfr_crosscheck``: its SAMs and what they found in the cases that were left out."""
        return self.results / f"SFR_crosscheck__{self._plan}"

    def left_out_labels(self, fold: Fold, source: str) -> Path:
        """Folder of the store with the labels of the cases that a fold of ``sfr_crosscheck`` leaves out.

        Args:
            fold: a number.
            source: who labelled them.
        """
        return self.crosschecks / fold_name(fold) / "left_out" / source

    def left_out_network(self, fold: Fold) -> Path:
        """The place of ``nnUNet_results`` for nnU-Net's training in a fold of ``sfr_crosscheck``.

        Args:
            fold: a number.
        """
        return self.crosschecks / fold_name(fold) / "nnunet"

    @property
    def crosscheck_result(self) -> Path:
        """What ``sfr_crosscheck`` found, as numbers."""
        return self.crosschecks / "crosscheck.json"

    def model(self, trainer: str) -> Path:
        """nnU-Net's folder of a model: all folds of a trainer with this plan and configuration."""
        return self.results / model_name(trainer, self.plans_name, self.configuration)

    def training(self, trainer: str, fold: Fold) -> Path:
        """nnU-Net's folder of one fold of a model.

        Args:
            trainer: name of a trainer class.
            fold: of the labelled cases.
        """
        return self.model(trainer) / fold_name(fold)

    def trainers(self, fold: Fold, checkpoints: Iterable[str] = CHECKPOINTS) -> list[str]:
        """Names of the trainers that have one of these checkpoints for a fold, sorted.

        Args:
            fold: of the labelled cases.
            checkpoints: file names, one of which is enough.
        """
        names = tuple(checkpoints)
        ending = model_name("", self.plans_name, self.configuration)
        folders = self.results.glob(f"*{ending}/{fold_name(fold)}")
        return sorted(
            folder.parent.name.removesuffix(ending)
            for folder in folders
            if any((folder / name).is_file() for name in names)
        )

    def begun_folds(self) -> list[Fold]:
        """Folds for which there is a fine-tuned SAM, a model or a pseudo-label store, complete or not."""
        ending = model_name("", self.plans_name, self.configuration)
        folders = [self.pseudo_labels_of_folds, self.sam_stage_of_folds, *self.results.glob(f"*{ending}")]
        names = {fold_of(place) for folder in folders for place in folder.glob(FOLDS_PATTERN)}
        return [int(name) if name.isdecimal() else name for name in sorted(names)]

    def report(self, fold: Fold) -> Path:
        """Folder of the page that ``sfr_report`` writes."""
        return self.results / f"SFR_report__{self._plan}" / fold_name(fold)


@dataclass(frozen=True)
class RunPaths(DatasetPaths):
    """The paths of one run of ``sfr_run``.

    Args:
        dataset_name: nnU-Net's full name.
        plans_name: nnU-Net's plans identifier.
        configuration: nnU-Net's.
        fold: of the run.
        name: what tells it from other runs on this fold: ``SFR_MT``, ``SFRPlus_MT_5epochs``.
    """

    plans_name: str
    configuration: str
    fold: Fold
    name: str

    @property
    def all_runs(self) -> Path:
        """The folder of all runs with this plan and configuration."""
        return self.results / f"SFR_run__{self.plans_name}__{self.configuration}"

    @property
    def folder(self) -> Path:
        return self.all_runs / fold_name(self.fold) / self.name

    @property
    def state(self) -> Path:
        """What was done, from what and with what result."""
        return self.folder / "state.json"

    @property
    def hashes(self) -> Path:
        """Hashes of files that have not changed since."""
        return self.all_runs / "hashes.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, step: str) -> Path:
        """What a step printed."""
        return self.logs / f"{step}.log"

    def states(self) -> list[Path]:
        """The state files of all runs with this plan and configuration."""
        return sorted(self.all_runs.glob(f"{FOLDS_PATTERN}/*/state.json"))

    def other_states(self) -> list[Path]:
        """The state files of the other runs, whose steps can be the same as ours."""
        return [file for file in self.states() if file != self.state]
