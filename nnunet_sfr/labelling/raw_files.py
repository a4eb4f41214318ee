"""The raw images behind the preprocessed unlabelled cases."""

from __future__ import annotations

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.file_identity import are_recorded, raw_file_hashes
from nnunet_sfr.data.preprocessed_files import PROVENANCE
from nnunet_sfr.data.raw_cases import RawCase, list_unlabelled, raise_first
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.hashing import FileHashes


def raw_files(dataset: SFRDataset, cases: UnlabelledDataset) -> dict[str, RawCase]:
    """The raw files of the unlabelled cases, by identifier.

    Args:
        dataset: planned.
        cases: preprocessed, unlabelled.

    Raises:
        UserError: the files of a case are missing, or changed since it was preprocessed.
    """
    listed = {case.identifier: case for case in list_unlabelled(dataset.paths.raw, dataset.dataset_json)}
    hashes = raw_file_hashes(dataset.paths.dataset_name)
    problems = []
    for identifier in cases.identifiers:
        folder = dataset.paths.raw_unlabelled
        if identifier not in listed:
            problems.append(f"{folder}: the image of case {identifier} is missing; put it back")
        elif not _is_unchanged(listed[identifier], cases, hashes):
            problems.append(
                f"{listed[identifier].images[0]}: changed since case {identifier} was preprocessed; "
                "run sfr_plan_and_preprocess again"
            )
    raise_first(problems)
    hashes.save()
    return {identifier: listed[identifier] for identifier in cases.identifiers}


def _is_unchanged(case: RawCase, cases: UnlabelledDataset, hashes: FileHashes) -> bool:
    _, _, _, properties = cases.load_case(case.identifier)
    recorded = properties.get(PROVENANCE, {}).get("inputs")
    return recorded is None or are_recorded(recorded, case.files, hashes)
