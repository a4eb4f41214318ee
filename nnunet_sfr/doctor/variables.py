"""nnU-Net's folders and the variables that it reads when it is imported."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_sfr.atomic import free_bytes, nearest_existing
from nnunet_sfr.cores import ALL_ELSE, AUGMENTATION, require_numbers
from nnunet_sfr.doctor.findings import Finding, note, ok, problem
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import PREPROCESSED, RAW, RESULTS
from nnunet_sfr.wording import GIB, gib

LOW_DISK = 5 * GIB
"""Free bytes below which a small data set, preprocessed and trained on, may not fit."""

WRITTEN = (PREPROCESSED, RESULTS)
"""Folders that runs write to, and make where they are missing."""

NUMBERS = (AUGMENTATION, ALL_ELSE)
"""Variables that nnU-Net takes as whole numbers while it is imported."""

OTHER_VARIABLES = ("nnUNet_compile", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def check_folders() -> list[Finding]:
    """nnU-Net's three variables: set, and their folders there and open to what runs do with them."""
    return [_folder(variable) for variable in (RAW, *WRITTEN)]


def check_variables() -> list[Finding]:
    """The other variables that change how nnU-Net works, where they are set."""
    findings = []
    for name in NUMBERS:
        try:
            require_numbers({name: os.environ[name]} if name in os.environ else {})
        except UserError:
            text = f"is {os.environ[name]!r}; nnU-Net takes a whole number and ends with an error"
            findings.append(problem(name, text, f"export {name}=<number>, or unset {name}"))
    values = [f"{name}={os.environ[name]}" for name in (*NUMBERS, *OTHER_VARIABLES) if name in os.environ]
    return findings or [ok("variables", ", ".join(values) or "none that changes nnU-Net's defaults is set")]


def _folder(variable: str) -> Finding:
    value = os.environ.get(variable)
    if not value:
        return problem(variable, "is not set", f"export {variable}=<folder>")
    folder = Path(value)
    if not folder.is_dir():
        return _missing_folder(variable, folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        return problem(variable, f"{folder}: may not be read", "give yourself the right to read it")
    if variable == RAW:
        return ok(variable, str(folder))
    if not os.access(folder, os.W_OK):
        return problem(variable, f"{folder}: may not be written to", f"export {variable}=<folder that may be>")
    free = free_bytes(folder)
    text = f"{folder}, {gib(free)} free"
    return ok(variable, text) if free >= LOW_DISK else note(variable, text, "free some space before a long run")


def _missing_folder(variable: str, folder: Path) -> Finding:
    if folder.exists():
        return problem(variable, f"{folder}: is a file", f"export {variable}=<folder>")
    if variable == RAW:
        return problem(variable, f"{folder}: not found", f"make it, or export {variable}=<folder>")
    parent = nearest_existing(folder.absolute().parent)
    if not os.access(parent, os.W_OK):
        return problem(
            variable, f"{folder}: not found, and {parent} may not be written to", f"export {variable}=<folder>"
        )
    return note(variable, f"{folder}: not found; the first run makes it", f"check {variable} for a typing mistake")
