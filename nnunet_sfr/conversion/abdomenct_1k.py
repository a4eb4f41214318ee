"""AbdomenCT-1K: liver, kidneys, spleen and pancreas in abdominal CT of many centres.

Images ``Case_00001_0000.nii.gz`` in ``AbdomenCT-1K-ImagePart1`` to ``3``, masks ``Case_00001.nii.gz`` in ``Mask``.
Numbers have gaps, and some images have no mask (hidden test sets of challenges); those are not read.

The paper has 1 or 180 labelled of 900 cases, and its text names no list. **The rule here**: the cases are the 1,000
masks in the order of their numbers; the first 900 are for training, and the first N of those are labelled; the last 100
are for testing. With fewer masks (``--allow-missing``) the last tenth is for testing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nnunet_sfr.conversion.lists import CaseLists, split_by_lists
from nnunet_sfr.conversion.nifti import index_files
from nnunet_sfr.conversion.nifti_dataset import CaseFiles, NiftiDataset
from nnunet_sfr.conversion.source_dataset import ConversionRequest, DatasetDescription, SourceDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.wording import first_names

LABELS = {"background": 0, "liver": 1, "kidneys": 2, "spleen": 3, "pancreas": 4}
SOURCE_LABELS = {value: name for name, value in LABELS.items()}
CASES, TEST_SHARE = 1000, 10
"""How many there are, and one in how many is for testing."""


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open images and masks.

    Raises:
        UserError: there are no masks, or too few, or images are missing or doubled.
    """
    masks = index_files(_files(request.source, "Mask*"), r"(Case_\d{5})\.nii(?:\.gz)?")
    images = index_files(_files(request.source, "*"), r"(Case_\d{5})_0000\.nii(?:\.gz)?")
    if not masks or not images:
        raise UserError(
            f"{request.source}: has no folder Mask with Case_00001.nii.gz and so on, or no images "
            "Case_00001_0000.nii.gz in other folders; check SOURCE"
        )
    lists = _lists(request, sorted(masks))
    split, missing = split_by_lists(lists, [case for case in lists.all if case in images], request)
    cases = {case: CaseFiles((images[case],), masks[case]) for case in lists.all if case in images}
    unused = sorted(set(images) - set(cases))
    origin = {
        "dataset": "AbdomenCT-1K",
        "source": "https://github.com/JunMa11/AbdomenCT-1K",
        "list": "masks in the order of their numbers, the last tenth to test on",
    }
    record = {
        "dataset": "AbdomenCT-1K",
        "source": str(request.source.resolve()),
        "seed": request.seed,
        "missing": list(missing),
        "images_without_mask": unused,
    }
    return NiftiDataset(cases, split, DatasetDescription(("CT",), LABELS).as_json(), SOURCE_LABELS, origin, record)


def _lists(request: ConversionRequest, masks: list[str]) -> CaseLists:
    if len(masks) < CASES and not request.allow_missing:
        numbers = {f"Case_{number:05d}" for number in range(1, int(masks[-1][-5:]) + 1)} - set(masks)
        raise UserError(
            f"{request.source}: has {len(masks)} masks of {CASES} (numbers without one: "
            f"{first_names(sorted(numbers))}); get the others, or add --allow-missing to convert these"
        )
    if len(masks) < TEST_SHARE:
        raise UserError(f"{request.source}: has {len(masks)} masks, too few for a test list; get more")
    masks = masks[:CASES]
    test = len(masks) // TEST_SHARE
    return CaseLists(tuple(masks[:-test]), tuple(masks[-test:]))


def _files(source: Path, folders: str) -> Iterator[Path]:
    """Files of the folders below ``source`` whose names match."""
    for folder in sorted(source.glob(folders)):
        if folder.is_dir():
            yield from folder.iterdir()
