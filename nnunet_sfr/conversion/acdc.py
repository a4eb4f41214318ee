"""ACDC: both ventricles and the myocardium in cardiac MRI, at end-diastole and end-systole.

``training/patient001`` to ``100`` and ``testing/patient101`` to ``150``, each with two frames
``patient001_frame01.nii.gz`` and their truths ``patient001_frame01_gt.nii.gz``. The lists are the organisers' own: 100
patients to train on, 50 to test on. A patient's frames stay together, so ``--labelled`` counts patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_sfr.conversion.lists import CaseLists, split_by_lists
from nnunet_sfr.conversion.nifti import index_files
from nnunet_sfr.conversion.nifti_dataset import CaseFiles, NiftiDataset
from nnunet_sfr.conversion.source_dataset import ConversionRequest, DatasetDescription, SourceDataset
from nnunet_sfr.errors import UserError

LABELS = {"background": 0, "right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
SOURCE_LABELS = {value: name for name, value in LABELS.items()}
FRAMES = 2
_FOLDERS = {"training": range(1, 101), "testing": range(101, 151)}
_UNPACKED = (".", "database", "ACDC", "ACDC/database")


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open the frames of all patients.

    Raises:
        UserError: no patients are there, or patients, frames or truths are missing.
    """
    root = next((folder for part in _UNPACKED if ((folder := request.source / part) / "training").is_dir()), None)
    if root is None:
        raise UserError(f"{request.source}: has no folder training with patient001 and so on, ACDC's; check SOURCE")
    lists = CaseLists(*(tuple(f"patient{number:03d}" for number in numbers) for numbers in _FOLDERS.values()))
    patients = {
        patient: files
        for name, group in zip(_FOLDERS, (lists.training, lists.test), strict=True)
        for patient in group
        if (files := _frames(root / name / patient, patient))
    }
    if not patients:
        raise UserError(f"{root}: has none of the 150 patients of ACDC; check SOURCE")
    split, missing = split_by_lists(lists, patients, request)
    frames = replace(
        split,
        labelled=_cases(split.labelled, patients),
        unlabelled=_cases(split.unlabelled, patients),
        test=_cases(split.test, patients),
    )
    cases = {case: files for frames_of in patients.values() for case, files in frames_of.items()}
    origin = {
        "dataset": "ACDC",
        "source": "https://humanheart-project.creatis.insa-lyon.fr/database",
        "list": "the organisers' training and testing patients",
    }
    record = {
        "dataset": "ACDC",
        "source": str(root.resolve()),
        "seed": request.seed,
        "labelled_patients": list(split.labelled),
        "missing": list(missing),
    }
    return NiftiDataset(cases, frames, DatasetDescription(("MRI",), LABELS).as_json(), SOURCE_LABELS, origin, record)


def _frames(folder: Path, patient: str) -> dict[str, CaseFiles]:
    """The frames of a patient that have a truth, by name; nothing without the folder."""
    if not folder.is_dir():
        return {}
    files = list(folder.iterdir())
    images = index_files(files, rf"({patient}_frame\d+)\.nii(?:\.gz)?")
    truths = index_files(files, rf"({patient}_frame\d+)_gt\.nii(?:\.gz)?")
    for case in sorted({*images, *truths}):
        if case not in images or case not in truths:
            lost = f"{case}.nii.gz" if case not in images else f"{case}_gt.nii.gz"
            raise UserError(f"{folder / lost}: not found; get it, or remove the folder of {patient}")
    if len(images) != FRAMES:
        raise UserError(
            f"{folder}: has {len(images)} frames of {patient} with a truth where ACDC has {FRAMES}; get it again"
        )
    return {case: CaseFiles((images[case],), truths[case]) for case in sorted(images)}


def _cases(patients: Sequence[str], frames: Mapping[str, Mapping[str, CaseFiles]]) -> tuple[str, ...]:
    return tuple(case for patient in patients for case in frames[patient])
