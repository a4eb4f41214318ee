"""Trainings that ``sfr_run`` has no record of: whether they are what it would have done.

A checkpoint does not say which pseudo-labels it learnt from. What can be known is taken together: the settings that the
trainer wrote down when it began are those of today, the plan is today's, and no file that it reads has changed since.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import as_json, read_json
from nnunet_sfr.nnunet_json import read_plans
from nnunet_sfr.paths import PLANS_JSON, TRAINING_SETTINGS
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.parts import settings_name, used_in_training
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.plans import SFRConfiguration

_LOG = re.compile(r"training_log_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)\.txt")


def require_same_training(training: Path, project: Project, trainer: str, inputs: Parts) -> None:
    """Check that a training by hand can be continued.

    Args:
        training: folder of its fold.
        project: of the run.
        trainer: name of it.
        inputs: what the training would read today.

    Raises:
        UserError: it cannot, or it cannot be known.
    """
    reason = _difference(training, project, trainer, inputs) or _changed_since(training, inputs)
    if reason is not None:
        raise UserError(
            f"{training}: holds a training that sfr_run has no record of, and {reason}; move or delete the folder"
        )


def _difference(training: Path, project: Project, trainer: str, inputs: Parts) -> str | None:
    settings, plans_file = _settings_of_today(_read(training / TRAINING_SETTINGS)), training.parent / PLANS_JSON
    if settings.get("trainer") != trainer:
        return f"its {TRAINING_SETTINGS} does not say that it is one of {trainer}"
    today = as_json(SFRConfiguration.from_dict(project.sfr_plan()).to_dict())
    for section, values in today.items():
        if settings_name(section) not in inputs:
            continue
        then = settings.get(section)
        if not isinstance(then, dict) or _used(project, section, then) != _used(project, section, values):
            return f"{section} in its {TRAINING_SETTINGS} is not {section} in the SFR plan of today"
    if (
        project.network_plan_of(read_plans(plans_file, "move or delete the folder"), plans_file)
        != project.network_plan()
    ):
        return f"its {PLANS_JSON} is not the plan of today"
    return None


def _used(project: Project, section: str, values: dict[str, Any]) -> dict[str, Any]:
    return used_in_training(project.options, section, values)


def _settings_of_today(settings: dict[str, Any]) -> dict[str, Any]:
    """What a training wrote of its settings, as this version would write them."""
    sections = {field.name for field in dataclasses.fields(SFRConfiguration)}
    try:
        known = SFRConfiguration.from_dict({name: value for name, value in settings.items() if name in sections})
    except ValueError:  # not a training's: the comparison says so
        return settings
    return {**settings, **as_json(known.to_dict())}


def _changed_since(training: Path, inputs: Parts) -> str | None:
    matches = [_LOG.fullmatch(file.name) for file in training.glob("training_log_*.txt")]
    begins = [datetime(*(int(number) for number in match.groups())) for match in matches if match]  # type: ignore[arg-type]
    if not begins:
        return "it has no log to say when it began"
    begin = min(begins).timestamp()
    files = [file for part in inputs.values() if isinstance(part, FileSet) for file in part.files]
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return f"{newest} has changed since it began" if newest.stat().st_mtime > begin else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file, "")
    except UserError:
        return {}
