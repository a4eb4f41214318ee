"""Pseudo-labels that a training should not start from: most cases empty, or a class that no case has."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from nnunet_sfr.command_lines import shell_text
from nnunet_sfr.data.store_files import record_file
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.label_names import class_names
from nnunet_sfr.labelling.emptiness import counted_voxels, find_emptiness
from nnunet_sfr.nnunet_json import read_dataset_json
from nnunet_sfr.pipeline.project import Project

ACCEPT_EMPTY_LABELS = "--accept-empty-labels"
"""The option of ``sfr_run`` that trains all the same."""

_SHAPE = {"class_voxels?": {...: int}}

_LONGEST = 300
"""Characters of the list of cases and classes in a message."""


def require_labels(project: Project, store: Path, cases: Sequence[str]) -> None:
    """Check that the pseudo-labels of a training are worth training on.

    Args:
        project: of the run.
        store: folder of the pseudo-labels.
        cases: identifiers of the unlabelled cases.

    Raises:
        UserError: most cases have no foreground, or a class is found in none.
    """
    records = {case: read_json(record_file(store, case), "run sfr_pseudolabel --overwrite", _SHAPE) for case in cases}
    names = class_names(read_dataset_json(project.paths.dataset_json))
    found = find_emptiness(counted_voxels(records), names)
    if project.options.accept_empty_labels or not found.is_suspicious:
        return
    lines = project.options.command_lines
    what = textwrap.shorten("; ".join(found.sentences()), _LONGEST, placeholder=" ...")
    raise UserError(
        f"{store}: {what}. A training would learn from it: see {shell_text(lines.report())}, label more cases or "
        f"change the fine-tuning in the SFR plan, or repeat the command with {ACCEPT_EMPTY_LABELS}"
    )
