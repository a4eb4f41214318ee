"""BraTS 2019: gliomas in MRI of four sequences, 335 cases with a truth.

A case is a folder in ``HGG`` or ``LGG`` with ``<case>_flair``, ``_t1``, ``_t1ce``, ``_t2`` and ``_seg``, NIfTI. The
truth has 1 (necrotic and non-enhancing core), 2 (oedema) and 4 (enhancing tumour), and no 3. The paper takes FLAIR
alone and the whole tumour (1, 2 and 4 together), with 250 cases to train on, 25 to validate and 60 to test; these
lists are those of
https://github.com/HiLab-git/SSL4MIS/tree/06df6047a59aba9988ced8331998b5957ecb356b/data/BraTS2019
"""

from __future__ import annotations

from pathlib import Path

from nnunet_sfr.conversion.lists import read_lists, split_by_lists
from nnunet_sfr.conversion.nifti import find_nifti
from nnunet_sfr.conversion.nifti_dataset import CaseFiles, NiftiDataset
from nnunet_sfr.conversion.source_dataset import ConversionRequest, DatasetDescription, SourceDataset
from nnunet_sfr.errors import UserError

CHANNELS = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
"""Name in ``dataset.json`` by the end of the file name."""
SOURCE_LABELS = {0: "background", 1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
GRADES = ("HGG", "LGG")
Target = tuple[dict[str, int | tuple[int, ...]], dict[int, int], tuple[int, ...]]
"""Labels, value by value of the source, and the order in which nnU-Net paints regions."""
WHOLE_TUMOUR: Target = ({"background": 0, "whole_tumour": 1}, {0: 0, 1: 1, 2: 1, 4: 1}, ())
REGIONS: Target = (
    {"background": 0, "whole_tumour": (1, 2, 3), "tumour_core": (2, 3), "enhancing_tumour": 3},
    {0: 0, 2: 1, 1: 2, 4: 3},
    (1, 2, 3),
)
_UNPACKED = "MICCAI_BraTS_2019_Data_Training"


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open the case folders; ``channels`` and ``regions`` are the options.

    Raises:
        UserError: no case folders are there, or cases, sequences or truths are missing or doubled.
    """
    root = next((folder for folder in (request.source, request.source / _UNPACKED) if _has_grade(folder)), None)
    if root is None:
        raise UserError(f"{request.source}: has no folder HGG or LGG with the cases of BraTS 2019; check SOURCE")
    lists = read_lists("BraTS")
    folders = {case: folder for case in lists.all if (folder := _find(root, case)) is not None}
    if not folders:
        raise UserError(
            f"{root}: has none of the {len(lists.all)} cases of the lists (such as {lists.training[0]}); check SOURCE"
        )
    channels = tuple(request.options.get("channels", ("flair",)))
    split, missing = split_by_lists(lists, folders, request)
    cases = {case: _files(case, folder, channels) for case, folder in folders.items()}
    labels, mapping, order = REGIONS if request.options.get("regions") else WHOLE_TUMOUR
    content = DatasetDescription(tuple(CHANNELS[channel] for channel in channels), labels, order)
    origin = {"dataset": "BraTS 2019", "source": "https://www.med.upenn.edu/cbica/brats2019.html", "list": "SSL4MIS"}
    record = {"dataset": "BraTS", "source": str(root.resolve()), "seed": request.seed, "missing": list(missing)}
    return NiftiDataset(cases, split, content.as_json(), SOURCE_LABELS, origin, record, mapping)


def _has_grade(folder: Path) -> bool:
    return any((folder / grade).is_dir() for grade in GRADES)


def _find(root: Path, case: str) -> Path | None:
    folders = [folder for grade in GRADES if (folder := root / grade / case).is_dir()]
    if len(folders) > 1:
        raise UserError(f"{folders[1]}: {case} lies in {folders[0].parent.name} too; remove one of the two")
    return folders[0] if folders else None


def _files(case: str, folder: Path, channels: tuple[str, ...]) -> CaseFiles:
    *images, label = (_require(case, folder, part) for part in (*channels, "seg"))
    return CaseFiles(tuple(images), label)


def _require(case: str, folder: Path, part: str) -> Path:
    file = find_nifti(folder, f"{case}_{part}")
    if file is None:
        raise UserError(f"{folder / f'{case}_{part}.nii.gz'}: not found; get it, or remove the folder of {case}")
    return file
