"""Labelled and unlabelled cases through nnU-Net's own preprocessor, in nnU-Net's own format, resumably.

A case is three files, ``<id>.b2nd`` (data), ``<id>_seg.b2nd`` (label; without one, nnU-Net's nonzero mask: 0 inside,
-1 outside) and ``<id>.pkl`` (properties). What a case was made from is kept in its properties under ``nnunet_sfr``:
name and hash of its input files, and hashes of the parts of the plan and of the labels that it depends on. A case whose
provenance still holds is not made again.

Cases are written in a folder beside the final one and moved when they are whole. The ``.b2nd`` file moves last and is
removed first: it is what nnU-Net lists, so at no time does nnU-Net see half a case. The final folder holds nothing but
current cases, since nnU-Net infers the format from all files in it and trains on every case in it.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.atomic import no_space, replacing
from nnunet_sfr.data.b2nd_files import open_b2nd
from nnunet_sfr.data.file_identity import file_stamps, identify
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.preprocessed_files import (
    CASE_ENDINGS,
    DATA_ENDING,
    PROPERTIES_ENDING,
    PROVENANCE,
    SEGMENTATION_ENDING,
    is_data_file,
)
from nnunet_sfr.data.preprocessed_grid import expected_shape, plan_hash
from nnunet_sfr.data.raw_cases import RawCase, RawDataset
from nnunet_sfr.data.sidecars import renamed_sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import json_hash
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.silence import without_printing

_INPUTS = "inputs"


@dataclass(frozen=True)
class PreprocessingResult:
    """How many cases were made, found up to date, and removed."""

    made: int
    kept: int
    removed: int


def preprocess(raw: RawDataset, paths: SFRPaths, plans_manager: PlansManager, *, processes: int) -> PreprocessingResult:
    """Bring the preprocessed labelled and unlabelled cases of one configuration up to date.

    Args:
        raw: the listed data set.
        paths: names the configuration and the folders to fill.
        plans_manager: nnU-Net's plan.
        processes: processes that preprocess in parallel (each holds a case or two in memory).

    Raises:
        UserError: the disk is full, or a worker was killed. Finished cases stay, and the next call resumes there.
    """
    jobs: list[_Job] = []
    removed = 0
    for cases, folder in ((raw.labelled, paths.labelled), (raw.unlabelled, paths.unlabelled)):
        removed += _remove_foreign_files(folder, cases)
        jobs += [_job(case, folder, paths.configuration, raw, plans_manager) for case in cases]
    made = _do_pending(jobs, paths, processes)
    return PreprocessingResult(made=made, kept=len(jobs) - made, removed=removed)


def preprocess_new_labels(
    identifiers: Collection[str], raw: RawDataset, paths: SFRPaths, plans_manager: PlansManager, *, processes: int
) -> None:
    """Preprocess cases that were unlabelled and are labelled now, and look at no other.

    Args:
        identifiers: of labelled cases.
        raw: the listed data set.
        paths: names the configuration and its folders.
        plans_manager: nnU-Net's plan.
        processes: processes that preprocess in parallel (each holds a case or two in memory).

    Raises:
        UserError: as :func:`preprocess`.
    """
    cases = [case for case in raw.labelled if case.identifier in identifiers]
    _do_pending(
        [_job(case, paths.labelled, paths.configuration, raw, plans_manager) for case in cases], paths, processes
    )
    for identifier in identifiers:
        # data file first: see the module's docstring
        for suffix in reversed(CASE_ENDINGS):
            _with_suffix(paths.unlabelled / identifier, suffix).unlink(missing_ok=True)


def _do_pending(jobs: Sequence[_Job], paths: SFRPaths, processes: int) -> int:
    """Make the cases that are not up to date; return how many."""
    pending = [job for job in jobs if not _is_current(job)]
    # of all folders: one may be left from a run that was killed
    scratches = {job.scratch for job in jobs}
    try:
        for scratch in scratches:
            shutil.rmtree(scratch, ignore_errors=True)
        for job in pending:
            job.scratch.mkdir(parents=True, exist_ok=True)
        run_parallel(_preprocess_case, pending, processes=processes, description=f"Preprocessing {paths.configuration}")
    except OSError as error:
        if (full := no_space(error, paths.preprocessed)) is not None:
            raise UserError(f"{paths.preprocessed}: {full}") from None
        raise
    finally:
        for scratch in scratches:
            shutil.rmtree(scratch, ignore_errors=True)
    return len(pending)


def copy_ground_truth(raw: RawDataset, preprocessed: Path) -> None:
    """Copy new and changed labels, and what belongs to them, to ``gt_segmentations``, for nnU-Net's validation.

    Args:
        raw: the raw data set.
        preprocessed: nnU-Net's folder of the data set.
    """
    folder, ending = preprocessed / "gt_segmentations", raw.dataset_json["file_ending"]
    for case in raw.labelled:
        assert case.label is not None
        # the key dataset may call a label otherwise than its case
        name = f"{case.identifier}{ending}"
        names = {case.label: name, **renamed_sidecars(case.label, name, ending, is_label=True)}
        copies = {file: folder / new for file, new in names.items()}
        for source, target in copies.items():
            if not (target.is_file() and _size_and_time(target) == _size_and_time(source)):
                with replacing(target) as temporary:
                    # copy2 keeps the time of change, which is how the next call knows
                    shutil.copy2(source, temporary)


def _size_and_time(file: Path) -> list[str | int]:
    return file_stamps([file])[0][1:]


# --- one case --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One case to preprocess: everything that a worker needs, picklable."""

    case: RawCase
    folder: Path
    configuration: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    num_channels: int
    provenance: dict[str, Any]

    @property
    def scratch(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.partial")


def _job(case: RawCase, folder: Path, configuration: str, raw: RawDataset, plans_manager: PlansManager) -> _Job:
    provenance = {
        _INPUTS: identify(case.files, raw.hashes),
        "plan": plan_hash(plans_manager, plans_manager.get_configuration(configuration)),
        # where nnU-Net samples foreground depends on the labels and regions
        "labels": None
        if case.label is None
        else json_hash([raw.dataset_json["labels"], raw.dataset_json.get("regions_class_order")]),
    }
    return _Job(case, folder, configuration, plans_manager.plans, raw.dataset_json, raw.num_channels, provenance)


def _preprocess_case(job: _Job) -> None:
    """Preprocess one case beside its folder, then move it in."""
    manager = PlansManager(job.plans)
    configuration = manager.get_configuration(job.configuration)
    scratch = job.scratch / job.case.identifier
    try:
        # readers remark on every file; what is wrong with one has been said by the checks
        with without_printing():
            configuration.preprocessor_class(verbose=False).run_case_save(
                str(scratch),
                [str(file) for file in job.case.images],
                None if job.case.label is None else str(job.case.label),
                manager,
                configuration,
                job.dataset_json,
            )
        properties = _load_properties(_with_suffix(scratch, PROPERTIES_ENDING))
        properties[PROVENANCE] = job.provenance
        with _with_suffix(scratch, PROPERTIES_ENDING).open("wb") as stream:
            pickle.dump(properties, stream)
        if not _is_whole(job, job.scratch):
            # blosc2 does not report every failed write
            raise UserError(
                f"{job.folder}: what was written of case {job.case.identifier} cannot be read back; check the disk, "
                "and run the same command again"
            )
        _publish(scratch, job.folder / job.case.identifier)
    except MemoryError:
        raise UserError(
            f"{job.case.images[0]}: memory ran out while case {job.case.identifier} was preprocessed; "
            "use fewer processes (-np)"
        ) from None
    except (OSError, RuntimeError) as error:
        if (full := no_space(error, job.folder)) is not None:
            raise UserError(f"{job.folder}: {full}") from error
        raise


def _publish(scratch: Path, target: Path) -> None:
    """Put a whole case in the place of an older one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in reversed(CASE_ENDINGS):
        _with_suffix(target, suffix).unlink(missing_ok=True)
    for suffix in CASE_ENDINGS:
        os.replace(_with_suffix(scratch, suffix), _with_suffix(target, suffix))


def _is_current(job: _Job) -> bool:
    """Whether the case in the folder is whole and was made from the same files by the same plan."""
    return _is_whole(job, job.folder)


def _is_whole(job: _Job, folder: Path) -> bool:
    """Whether ``folder`` has all files of the case, with the right provenance and shapes."""
    stem = folder / job.case.identifier
    manager = PlansManager(job.plans)
    try:
        properties = _load_properties(_with_suffix(stem, PROPERTIES_ENDING))
        if not _is_made_from(properties.get(PROVENANCE), job):
            return False
        shape = expected_shape(properties, manager, manager.get_configuration(job.configuration))
        data = open_b2nd(_with_suffix(stem, DATA_ENDING))
        segmentation = open_b2nd(_with_suffix(stem, SEGMENTATION_ENDING))
    except Exception:  # a file that is missing or broken in whatever way has to be made again
        return False
    return bool(data.shape == (job.num_channels, *shape) and segmentation.shape == (1, *shape))


def _is_made_from(recorded: Any, job: _Job) -> bool:
    """Whether a provenance is the job's; earlier versions knew the files by their time of change."""
    return bool(recorded == job.provenance or recorded == {**job.provenance, _INPUTS: file_stamps(job.case.files)})


def _remove_foreign_files(folder: Path, cases: Sequence[RawCase]) -> int:
    """Remove all files that belong to none of the cases (nnU-Net itself empties this folder); return how many cases."""
    if not folder.is_dir():
        return 0
    wanted = {f"{case.identifier}{suffix}" for case in cases for suffix in CASE_ENDINGS}
    foreign = [entry for entry in folder.iterdir() if entry.is_file() and entry.name not in wanted]
    # data files first: see the module's docstring
    foreign.sort(key=lambda file: not is_data_file(file.name))
    for file in foreign:
        file.unlink()
    return sum(is_data_file(file.name) for file in foreign)


def _load_properties(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        properties: dict[str, Any] = pickle.load(stream)
    return properties


def _with_suffix(stem: Path, suffix: str) -> Path:
    """``Path.with_suffix`` would cut an identifier that has a dot."""
    return stem.with_name(stem.name + suffix)
