"""The whole examination, section by section; what an earlier section rules out is not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.doctor.findings import Check, Finding, Level, Section, count, note, problem, section
from nnunet_sfr.doctor.installation import check_imports, check_packages
from nnunet_sfr.doctor.subject import NamedDataset
from nnunet_sfr.doctor.variables import check_folders, check_variables
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import LABELLED_IMAGES, DatasetPaths, resolve_dataset_name

if TYPE_CHECKING:
    from nnunet_sfr.dataset import SFRDataset
    from nnunet_sfr.doctor.raw_folders import RawImages


def examine(subject: NamedDataset | None, device: str) -> Iterator[Section]:
    """Look at installation and machine, and at a data set.

    Args:
        subject: None for no data set.
        device: that will compute, or ``auto``.

    Raises:
        UserError: there is no such data set; raised before the first section.
    """
    installation = section("Installation", [("packages", check_packages), ("variables", check_variables)])
    if count([installation], Level.PROBLEM) == 0:
        installation = Section(installation.title, installation.findings + tuple(check_imports()))
    folders = section("Folders", [("folders", check_folders)])
    if count([installation], Level.PROBLEM) > 0:
        left_out = note("the rest", "is not looked at", "fix the installation first")
        yield from (installation, folders, Section("Trainers, device, data", (left_out,)))
        return
    name = None if subject is None else resolve_dataset_name(subject.dataset)
    yield from (installation, folders)
    yield from _machine(device)
    if subject is not None and name is not None:
        yield from _dataset(subject, name)


def _machine(device: str) -> Iterator[Section]:
    # here and below, what imports torch and nnU-Net comes late: it takes seconds, or fails
    from nnunet_sfr.doctor.device import check_cores, check_device, check_requested_device
    from nnunet_sfr.doctor.trainers import check_new_processes, check_search, check_variable

    yield section(
        "Trainers",
        [("variable", check_variable), ("trainers", check_search), ("new process", check_new_processes)],
    )
    requested = partial(check_requested_device, device)
    yield section("Device", [("cores", check_cores), ("device", check_device), ("device", requested)])


def _dataset(subject: NamedDataset, name: str) -> Iterator[Section]:
    raw, raw_section = _raw_data(subject, DatasetPaths(name))
    yield raw_section
    dataset, plan_section = _plan(subject, name, has_raw=raw is not None)
    yield plan_section
    if dataset is not None:
        yield from _stages(subject, dataset, raw)


def _raw_data(subject: NamedDataset, paths: DatasetPaths) -> tuple[RawImages | None, Section]:
    from nnunet_sfr.doctor.folds import check_folds
    from nnunet_sfr.doctor.raw_folders import check_names, read_folders
    from nnunet_sfr.doctor.same_images import check_same_images

    title = f"Raw data of {paths.dataset_name}"
    if not paths.raw_is_here():
        text = f"{paths.dataset_name}: not in nnUNet_raw on this machine, so its images are not compared"
        return None, Section(title, (note("cases", text),))
    try:
        raw = read_folders(paths.raw)
    except UserError as error:
        return None, Section(title, (problem("cases", str(error)),))
    checks: list[tuple[str, Check]] = [
        ("cases", partial(check_names, raw)),
        ("same image", partial(check_same_images, raw)),
        ("folds", partial(check_folds, paths, subject.fold, len(raw.sets[LABELLED_IMAGES]))),
    ]
    return raw, section(title, checks)


def _plan(subject: NamedDataset, name: str, *, has_raw: bool) -> tuple[SFRDataset | None, Section]:
    from nnunet_sfr.dataset import open_dataset
    from nnunet_sfr.doctor.disk import check_views
    from nnunet_sfr.doctor.folds import check_split
    from nnunet_sfr.doctor.plan import check_freshness, check_plan

    if not DatasetPaths(name).sfr_plans_files():  # plans of nnU-Net alone are none yet
        return None, Section("Plan", (_not_planned(subject),))
    title = f"Plan {subject.plans_name or ''}".strip()
    try:
        dataset = open_dataset(name, subject.configuration, subject.plans_name)
        title = f"Plan {dataset.paths.plans_name}, {dataset.paths.configuration}"
        stitching = dataset.settings.stitching
    except UserError as error:
        return None, Section(title, (problem("plan", str(error)),))
    checks: list[tuple[str, Check]] = [("plan", partial(check_plan, dataset, stitching))]
    checks += [("plan", partial(check_freshness, dataset))] if has_raw else []
    checks += [("split", partial(check_split, dataset, subject.fold)), ("disk", partial(check_views, dataset))]
    return dataset, section(title, checks)


def _not_planned(subject: NamedDataset) -> Finding:
    left_out = "mosaic, SAM, memory and stages are not looked at"
    return note("plan", f"none yet; {left_out}", f"sfr_plan_and_preprocess -d {subject.dataset}")


def _stages(subject: NamedDataset, dataset: SFRDataset, raw: RawImages | None) -> Iterator[Section]:
    from nnunet_sfr.doctor import memory, sam, stages
    from nnunet_sfr.doctor.device import device_to_use

    device, fold = device_to_use(subject.device), subject.fold
    yield section(
        "SAM",
        [
            ("SAM", partial(sam.check_model, dataset, device)),
            ("checkpoint", partial(sam.check_checkpoint, dataset)),
        ],
    )
    yield section(
        f"Memory of one step on {device.type}",
        [
            ("fine-tuning", partial(memory.check_fine_tuning, dataset, device)),
            ("pseudo-labels", partial(memory.check_pseudo_labelling, dataset, device)),
            ("re-training", partial(memory.check_retraining, dataset, device)),
        ],
    )
    store = dataset.paths.pseudo_labels(fold)
    label = shell_text(CommandLines.of(dataset.paths, fold, subject.device).pseudo_label())
    yield section(
        f"Stages of fold {fold}",
        [
            ("preprocessed", partial(stages.check_preprocessed, dataset, raw)),
            ("adapter", partial(stages.check_adapter, dataset, fold)),
            ("pseudo-labels", partial(stages.check_pseudo_labels, dataset, store, label)),
            ("models", partial(stages.check_models, dataset, fold)),
            ("rounds", partial(stages.check_rounds, dataset, fold)),
        ],
    )
