"""Whether nnU-Net finds our trainers, in this process and in those that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_sfr.doctor.findings import Finding, note, ok, problem, some_names
from nnunet_sfr.environment import PLUGIN_FOLDER, TRAINER_PATH_VARIABLE
from nnunet_sfr.silence import without_printing
from nnunet_sfr.trainers import ROUND_TRAINERS, TRAINERS
from nnunet_sfr.wording import reason

REMEDY = f"export {TRAINER_PATH_VARIABLE}={PLUGIN_FOLDER}"
_PRINT_VARIABLE = f"import os; print(os.environ.get({TRAINER_PATH_VARIABLE!r}, ''))"
_START_SECONDS = 60


def check_variable() -> list[Finding]:
    """The folders that nnU-Net looks into."""
    value = os.environ.get(TRAINER_PATH_VARIABLE, "")
    missing = [folder for folder in value.split(os.pathsep) if folder.strip() and not os.path.isdir(folder)]
    if missing:
        return [
            note(
                TRAINER_PATH_VARIABLE, f"{value} (not found: {', '.join(missing)})", "remove the folders that are gone"
            )
        ]
    if not _names_us(value):
        return [problem(TRAINER_PATH_VARIABLE, f"{value or 'is not set'}: {PLUGIN_FOLDER} is not in it", REMEDY)]
    return [ok(TRAINER_PATH_VARIABLE, value)]


def check_search(names: Sequence[str] = (*TRAINERS, *ROUND_TRAINERS)) -> list[Finding]:
    """Let nnU-Net's own search look for every trainer."""
    lost, why = [], ""
    for name in names:
        try:
            # it says where it looks, and what it imports there may warn
            with without_printing(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                recursive_find_trainer_class_by_name(name)
        except Exception as error:  # a module of others in one of the folders may raise anything
            lost.append(name)
            why = reason(error)
    if lost:
        text = f"nnU-Net finds {len(names) - len(lost)} of {len(names)}; not {some_names(lost)} ({why})"
        return [problem("trainers", text, REMEDY, lost)]
    return [ok("trainers", f"nnU-Net finds all {len(names)}, each also with _<N>epochs")]


def check_new_processes(python: str = sys.executable) -> list[Finding]:
    """What a process of this environment knows from its start, without and with the variable of this one.

    Args:
        python: the interpreter to start.
    """
    subject = "new process"
    announced = _variable_of_child(python, inherit=False)
    if _names_us(announced):
        return [ok(subject, "is told of them when Python starts (nnunet_sfr.pth)")]
    if announced:
        text = f"is told of {announced} when Python starts, which belongs to another installation than this one"
        return [note(subject, text, "uninstall one of the two")]
    if _names_us(_variable_of_child(python, inherit=True)):
        text = f"knows them by your {TRAINER_PATH_VARIABLE} alone: nnunet_sfr.pth of the installation is not read"
        return [note(subject, text, "keep the variable set wherever nnU-Net is started, or install again")]
    return [problem(subject, "knows no trainers: nnunet_sfr.pth of the installation is not read", REMEDY)]


def _names_us(value: str) -> bool:
    return PLUGIN_FOLDER in (os.path.normpath(folder) for folder in value.split(os.pathsep))


def _variable_of_child(python: str, *, inherit: bool) -> str:
    environment = {name: value for name, value in os.environ.items() if inherit or name != TRAINER_PATH_VARIABLE}
    result = subprocess.run(
        [python, "-c", _PRINT_VARIABLE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=_START_SECONDS,
    )
    # the last line: what a sitecustomize of theirs prints comes before
    return result.stdout.splitlines()[-1]
