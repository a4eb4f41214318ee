"""BTCV: 30 abdominal CT of the challenge "Beyond the Cranial Vault" with 13 organs.

``Training/img/img0001.nii.gz`` and ``Training/label/label0001.nii.gz``, numbers 0001 to 0010 and 0021 to 0040; the 20
volumes in ``Testing`` (from ``img0061`` on) have no public truth and are not read. 18 cases to train on and 12 to test
on are those of MagicNet, which the paper follows:
https://github.com/DeepMed-Lab-ECNU/MagicNet/tree/316d7ee93c4b0c9d6c2272fb928f7f56585a1108/data/btcv.txt

The training list is in MagicNet's order after its seeded shuffle, so that the first 7 are its labelled cases. Which
order the authors of SFR used is not public.

Some volumes are oblique: their axes are at right angles to three digits only, which ITK readers, nnU-Net's too, refuse.
They get the nearest axes that are.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_sfr.conversion.lists import read_lists, split_by_lists
from nnunet_sfr.conversion.nifti import index_files
from nnunet_sfr.conversion.nifti_dataset import CaseFiles, NiftiDataset
from nnunet_sfr.conversion.source_dataset import ConversionRequest, DatasetDescription, SourceDataset
from nnunet_sfr.errors import UserError

LABELS = {
    "background": 0,
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "oesophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior_vena_cava": 9,
    "portal_and_splenic_veins": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}
SOURCE_LABELS = {value: name for name, value in LABELS.items()}
_UNPACKED = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open the training part of the challenge.

    Raises:
        UserError: no images are there, or images or labels are missing or doubled.
    """
    root = next((folder for part in _UNPACKED if ((folder := request.source / part) / "img").is_dir()), None)
    if root is None:
        raise UserError(f"{request.source}: has no folder img with img0001.nii.gz and so on, BTCV's; check SOURCE")
    images = _index(root / "img", "img")
    labels = _index(root / "label", "label")
    lists = read_lists("BTCV")
    present = [case for case in lists.all if case in images]
    if not present:
        raise UserError(f"{root / 'img'}: has none of the 30 cases, img0001.nii.gz and so on; check SOURCE")
    split, missing = split_by_lists(lists, present, request)
    without = [case for case in present if case not in labels]
    if without:
        raise UserError(f"{root / 'label' / f'label{without[0]}.nii.gz'}: not found; get it, or remove img{without[0]}")
    cases = {case: CaseFiles((images[case],), labels[case]) for case in present}
    origin = {"dataset": "BTCV", "source": "https://www.synapse.org/Synapse:syn3193805", "list": "MagicNet"}
    record = {"dataset": "BTCV", "source": str(root.resolve()), "seed": request.seed, "missing": list(missing)}
    return NiftiDataset(cases, split, DatasetDescription(("CT",), LABELS).as_json(), SOURCE_LABELS, origin, record)


def _index(folder: Path, prefix: str) -> dict[str, Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return index_files(files, prefix + r"(\d{4})\.nii(?:\.gz)?")
