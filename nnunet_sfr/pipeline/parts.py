"""What steps depend on, part by part; the names are those that a user is told when a part has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnunet_sfr.nnunet_json import read_dataset_json
from nnunet_sfr.paths import DATASET_JSON
from nnunet_sfr.pipeline.digests import FileSet
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.plans import retraining_of_today
from nnunet_sfr.trainers.methods import MethodSections

_LABELS = ("labels", "regions_class_order", "channel_names", "file_ending")
"""What of dataset.json matters once the cases are preprocessed."""
_IF_PRESENT = ("modality",)
"""The same, but without a place in the record where it is not there, so that earlier records stay right."""


SAM_WEIGHTS = "weights of SAM"
"""What a file of weights that the SFR plan names is called."""


def settings_name(section: str) -> str:
    """What a section of the SFR plan is called."""
    return f"{section} of the SFR plan"


def settings_parts(project: Project, *sections: str) -> dict[str, Any]:
    """Sections of the SFR plan, each a part of its own; those that are not there have their defaults."""
    plan = project.sfr_plan()
    values = {section: plan.get(section, {}) for section in ("derived_from", *sections)}
    if isinstance(values.get("sam", {}).get("checkpoint"), str):
        # where the file lies does not count; its content is a part of its own
        values["sam"] = {name: value for name, value in values["sam"].items() if name != "checkpoint"}
    return {settings_name(section): value for section, value in values.items()}


def sam_part_of_earlier_versions(project: Project) -> dict[str, Any]:
    """The section ``sam`` as it stands in the plan, with the path of its weights."""
    return {settings_name("sam"): project.sfr_plan().get("sam", {})}


def some_settings_part(project: Project, section: str, *names: str) -> dict[str, Any]:
    """The settings of a section that a step reads: it does not depend on the others.

    Args:
        project: of the run.
        section: of the SFR plan.
        names: of the settings.
    """
    values = project.sfr_plan().get(section, {})
    return {settings_name(section): {name: value for name, value in values.items() if name in names}}


def used_in_training(options: RunOptions, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a section of the SFR plan a training reads: of ``retraining`` no section of another method, of ``rounds``
    its length, and no length where the trainer's name has it.

    Args:
        options: of the run.
        section: name of it.
        values: as they stand in the plan, of any version.
    """
    if section == "retraining":
        unused = {field.name for field in fields(MethodSections)} - {options.method.lower()}
        unused |= set() if options.epochs is None else {"epochs"}
        return {name: value for name, value in retraining_of_today(values).items() if name not in unused}
    if section == "rounds":
        used = {"retraining_fraction"} if options.epochs is None else set()
        return {name: value for name, value in values.items() if name in used}
    return dict(values)


def training_settings_part(project: Project, section: str) -> dict[str, Any]:
    """:func:`used_in_training` of a section of the SFR plan.

    Args:
        project: of the run.
        section: name of it.
    """
    return {settings_name(section): used_in_training(project.options, section, project.sfr_plan().get(section, {}))}


def label_meaning_part(project: Project) -> dict[str, Any]:
    """What label values and channels mean."""
    return _of_dataset_json(project, _IF_PRESENT)


def label_meaning_part_of_earlier_versions(project: Project) -> dict[str, Any]:
    """:func:`label_meaning_part` without what earlier versions did not record."""
    return _of_dataset_json(project)


def _of_dataset_json(project: Project, if_present: tuple[str, ...] = ()) -> dict[str, Any]:
    content = read_dataset_json(project.paths.dataset_json)
    keys = [*_LABELS, *(key for key in if_present if key in content)]
    return {DATASET_JSON: {key: content.get(key) for key in keys}}


def weights_part(project: Project) -> dict[str, FileSet]:
    """The file of ``sam.checkpoint``, which can be replaced in place; the model names published ones."""
    checkpoint = project.sfr_plan().get("sam", {}).get("checkpoint")
    return {SAM_WEIGHTS: FileSet.of(Path(checkpoint))} if isinstance(checkpoint, str) else {}


def fold_part(project: Project) -> dict[str, Any]:
    return {"fold": [str(project.options.fold), project.split()]}


def labelled_part(project: Project) -> dict[str, FileSet]:
    return {"preprocessed labelled cases": FileSet(tuple(project.properties(unlabelled=False)))}


def unlabelled_part(project: Project) -> dict[str, FileSet]:
    return {"preprocessed unlabelled cases": FileSet(tuple(project.properties(unlabelled=True)))}


def store_part(project: Project, name: str, folder: Path) -> dict[str, FileSet]:
    """The files of a pseudo-label store.

    Args:
        project: of the run, which knows the unlabelled cases.
        name: of the part.
        folder: of the store.
    """
    return {name: FileSet(tuple(project.store_files(folder)))}
