"""The command that comes next, to be pasted: the last line of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nnunet_sfr.command_lines import AUTO, Command, CommandLines
from nnunet_sfr.doctor.findings import Level, Section, count
from nnunet_sfr.doctor.subject import NamedDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import CHECKPOINTS, FINAL_ADAPTER, FINAL_CHECKPOINT, RAW, UNLABELLED_IMAGES, nnunet_root
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.plan_step import Plan
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.planner_names import CPU_PLANNER, DEFAULT_PLANNER, planner_of
from nnunet_sfr.trainers.methods import DEFAULT_TRAINER


def next_step(subject: NamedDataset | None, sections: Sequence[Section], device: str) -> tuple[str, Command]:
    """What to do after this report, in words, and its command.

    Args:
        subject: that was examined; None for the machine alone.
        sections: of the report.
        device: that was looked for, or ``auto``.
    """
    on_device = () if device == AUTO else ("-device", device)
    if count(sections, Level.PROBLEM):
        again = on_device if subject is None else ("-d", subject.dataset, *subject.options())
        return "put the problems right, then look again", ("sfr_doctor", *again)
    if subject is None:
        return "look at a data set", _first_data_set(on_device)
    if not subject.is_planned():
        return "plan and preprocess", _plan(subject)
    return _stage(subject)


def _first_data_set(on_device: Command) -> Command:
    """sfr_doctor for the first data set with unlabelled images; its help where there is none."""
    try:
        folders = nnunet_root(RAW).glob(f"Dataset*_*/{UNLABELLED_IMAGES}")
        names = sorted(folder.parent.name for folder in folders)
    except (UserError, OSError):
        names = []
    return ("sfr_doctor", "-d", names[0], *on_device) if names else ("sfr_convert", "-h")


def _plan(subject: NamedDataset) -> Command:
    from nnunet_sfr.devices import resolve_device

    planner = planner_of(subject.plans_name)
    if subject.plans_name is None and resolve_device(subject.device).type == "cpu":
        planner = CPU_PLANNER
    option = () if planner == DEFAULT_PLANNER else ("-pl", planner)
    # -f and -device are no options of planning
    names = replace(subject, fold="all", device=AUTO).options()
    return ("sfr_plan_and_preprocess", "-d", subject.dataset, *option, *names)


def _stage(subject: NamedDataset) -> tuple[str, Command]:
    """The first stage of SFR that is not complete."""
    from nnunet_sfr.data.datasets import UnlabelledDataset
    from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
    from nnunet_sfr.dataset import open_dataset
    from nnunet_sfr.devices import device_for_nnunet
    from nnunet_sfr.sam_stage.model import adapter_files
    from nnunet_sfr.sam_stage.recipe import changed_since_fine_tuning
    from nnunet_sfr.trainers import find_trainer

    fold = subject.fold
    dataset = open_dataset(subject.dataset, subject.configuration, subject.plans_name)
    paths = dataset.paths
    lines = CommandLines.of(paths, fold, subject.device)
    try:
        wanted = set(UnlabelledDataset(paths.unlabelled).identifiers)
        dataset.split(fold)
    except UserError:  # planned with --no_pp, or preprocessed cases were removed
        options = RunOptions(
            dataset=lines.dataset,
            dataset_name=paths.dataset_name,
            configuration=paths.configuration,
            plans=paths.plans_name,
        )
        return "preprocess", Plan(Project(options)).command
    tuned, by_sam = all(file.is_file() for file in adapter_files(dataset, fold, FINAL_ADAPTER)), True
    try:
        store = PseudoLabelStore.open(paths.pseudo_labels(fold), grid=dataset.grid)
        labelled, by_sam = set(store.identifiers()), store.made_by.is_sam
    except UserError:
        labelled = set()
    if tuned and by_sam and changed_since_fine_tuning(dataset, fold):
        return "fine-tune SAM again", (*lines.fine_tune(), "--overwrite")
    if not wanted <= labelled:
        if not tuned:
            return "fine-tune SAM", lines.fine_tune()
        return "label the unlabelled cases", lines.pseudo_label()
    if any(map(find_trainer, paths.trainers(fold, (FINAL_CHECKPOINT,)))):
        return "see the result", lines.report()
    nnunet = lines if subject.device != AUTO else replace(lines, device=device_for_nnunet())
    begun = [name for name in paths.trainers(fold, CHECKPOINTS) if find_trainer(name)]
    if begun:
        return "complete the training", (*nnunet.train(begun[0]), "--c")
    return "train", nnunet.train(DEFAULT_TRAINER)
