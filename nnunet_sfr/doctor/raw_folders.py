"""The raw cases by their names: how many there are, what is missing, and who is in two sets at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_sfr.data.raw_cases import list_cases, named_files
from nnunet_sfr.doctor.findings import Finding, Level, note, ok, problem, some_names
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import Shape, read_json
from nnunet_sfr.nnunet_json import WRITE_DATASET_JSON
from nnunet_sfr.paths import DATASET_JSON, LABELLED_IMAGES, LABELS, TEST_IMAGES, UNLABELLED_IMAGES

SETS = {LABELLED_IMAGES: "labelled", UNLABELLED_IMAGES: "unlabelled", TEST_IMAGES: "test"}
"""Folders of images, and what their cases are called."""

_CHANNEL = len("_0000")
_CASES: Shape = {"dataset?": {...: {"images": [str], "label": str}}}
"""What is read here of ``dataset.json``, besides the ending; planning checks all of it."""


@dataclass(frozen=True)
class RawImages:
    """Everything that lies in the folders of images, whether it passes the checks of planning or not.

    Args:
        folder: ``nnUNet_raw/<name>``.
        dataset_json: its ``dataset.json``.
        sets: files by set and identifier.
        labels: label file by identifier of the labelled cases.
    """

    folder: Path
    dataset_json: dict[str, Any]
    sets: Mapping[str, Mapping[str, tuple[Path, ...]]]
    labels: Mapping[str, Path]

    def files(self) -> Iterator[tuple[str, str, Path]]:
        """Set, identifier and file of every image."""
        for name, cases in self.sets.items():
            for identifier, files in cases.items():
                yield from ((name, identifier, file) for file in files)


def read_folders(folder: Path) -> RawImages:
    """List a raw data set.

    Raises:
        UserError: there is no ``dataset.json``, none that says how the files end, or its cases are of another shape.
    """
    dataset_json = read_json(folder / DATASET_JSON, WRITE_DATASET_JSON, _CASES)
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str):
        raise UserError(f"{folder / DATASET_JSON}: the key file_ending is missing; add it")
    sets = {name: _group(folder / name, ending) for name in SETS}
    labels = {identifier: folder / LABELS / f"{identifier}{ending}" for identifier in sets[LABELLED_IMAGES]}
    if "dataset" in dataset_json:
        named = named_files(folder, dataset_json)
        sets[LABELLED_IMAGES] = {identifier: images for identifier, (images, _) in named.items()}
        labels = {identifier: label for identifier, (_, label) in named.items()}
    return RawImages(folder, dataset_json, sets, labels)


def check_names(raw: RawImages) -> list[Finding]:
    """Counts, labels that are missing, identifiers of two sets, and what else planning would refuse."""
    counts = ", ".join(f"{len(raw.sets[name])} {kind}" for name, kind in SETS.items())
    findings = [*_missing_labels(raw), *_shared_identifiers(raw)]
    if not any(finding.level is Level.PROBLEM for finding in findings):
        try:
            list_cases(raw.folder)
        except UserError as error:
            findings.append(problem("cases", str(error)))
    return [ok("cases", counts) if raw.sets[UNLABELLED_IMAGES] else note("cases", counts), *findings]


def _group(folder: Path, ending: str) -> dict[str, tuple[Path, ...]]:
    """Files by identifier, by nnU-Net's rule: the name without channel and ending."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.name.endswith(ending) and not file.name.startswith("."):
            groups.setdefault(file.name.removesuffix(ending)[:-_CHANNEL], []).append(file)
    return {identifier: tuple(files) for identifier, files in groups.items()}


def _missing_labels(raw: RawImages) -> list[Finding]:
    missing = [str(label) for label in raw.labels.values() if not label.is_file()]
    if not missing:
        return []
    text = f"{len(missing)} of {len(raw.labels)} are missing: {some_names(missing)}"
    return [problem("labels", text, f"add them, or move their images to {UNLABELLED_IMAGES}", missing)]


def _shared_identifiers(raw: RawImages) -> list[Finding]:
    findings = []
    for one, other in itertools.combinations(SETS, 2):
        shared = sorted(raw.sets[one].keys() & raw.sets[other].keys())
        if shared:
            text = f"{len(shared)} in {one} and in {other}: {some_names(shared)}"
            remedy = "remove one of the two" if TEST_IMAGES not in (one, other) else f"remove it from {one}"
            remedy += ", or rename it if it is of another patient"
            findings.append(problem("identifiers", text, remedy, shared))
    return findings
