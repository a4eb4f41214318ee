"""The raw images behind the preprocessed unlabelled cases."""

from __future__ import annotations

from nnunet_sfr.data.cases import Case, file_stamps, list_unlabelled, raise_first
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessing import PROVENANCE
from nnunet_sfr.dataset import SFRDataset


def raw_cases(dataset: SFRDataset, cases: UnlabelledDataset) -> dict[str, Case]:
    """The raw files of the unlabelled cases, by identifier.

    Raises:
        UserError: the files of a case are missing, or changed since it was preprocessed.
    """
    listed = {case.identifier: case for case in list_unlabelled(dataset.paths.raw, dataset.dataset_json)}
    problems = []
    for identifier in cases.identifiers:
        folder = dataset.paths.raw_unlabelled
        if identifier not in listed:
            problems.append(f"{folder}: the image of case {identifier} is missing; put it back")
        elif not _is_unchanged(listed[identifier], cases):
            problems.append(
                f"{listed[identifier].images[0]}: changed since case {identifier} was preprocessed; "
                "run sfr_plan_and_preprocess again"
            )
    raise_first(problems)
    return {identifier: listed[identifier] for identifier in cases.identifiers}


def _is_unchanged(case: Case, cases: UnlabelledDataset) -> bool:
    _, _, _, properties = cases.load_case(case.identifier)
    recorded = properties.get(PROVENANCE, {}).get("inputs")
    return recorded is None or recorded == file_stamps(case.files)
