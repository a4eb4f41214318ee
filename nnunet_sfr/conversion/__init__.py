"""Public data sets in nnU-Net's raw layout: one file a data set, and a record here.

Such a file has a function ``open_source_dataset`` that takes a ``ConversionRequest`` and returns a ``SourceDataset``
(:mod:`nnunet_sfr.conversion.source_dataset`); checking and writing are the same for all. ::

    source = PUBLIC_DATASETS["BTCV"].open(ConversionRequest(Path("Abdomen/RawData"), labelled=7))
    convert_source(source, dataset_folder(501, "BTCV"))
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nnunet_sfr.conversion.source_dataset import ConversionRequest, SourceDataset


@dataclass(frozen=True)
class DatasetOption:
    """An option of ``sfr_convert`` that only one data set has; given, it is in the request's ``options``.

    Args:
        name: after ``--``, and the key of the request.
        help: what it does, and its default.
        kind: ``flag`` without a value, ``count`` with a number from 1, ``one`` or ``several`` of the choices.
        choices: what may be given.
    """

    name: str
    help: str
    kind: Literal["flag", "count", "one", "several"]
    choices: tuple[str, ...] | tuple[int, ...] = ()


@dataclass(frozen=True)
class PublicDataset:
    """One that we know how to convert.

    Args:
        module: its file in this package, imported only when it is asked for.
        title: what it is.
        layout: what SOURCE holds.
        cases: who is labelled, unlabelled and to test on.
        obtained: where it is had, and under which licence.
        disk: what the conversion writes.
        labelled: number of labelled cases unless another is asked for.
        options: of ``sfr_convert`` that this data set alone has.
    """

    module: str
    title: str
    layout: str
    cases: str
    obtained: str
    disk: str
    labelled: int
    options: tuple[DatasetOption, ...] = ()

    def open(self, request: ConversionRequest) -> SourceDataset:
        """Open what the request names.

        Raises:
            UserError: the source is not this data set, or is not complete.
        """
        source: SourceDataset = import_module(f"nnunet_sfr.conversion.{self.module}").open_source_dataset(request)
        return source


PUBLIC_DATASETS = {
    "LA": PublicDataset(
        module="left_atrium",
        title="left atrium in MRI, Atrial Segmentation Challenge 2018",
        layout="the benchmark's folder with CASE/mri_norm2.h5 or CASE.h5 for each of its 100 cases; or a folder with "
        "images/CASE.nii.gz, labels/CASE.nii.gz and splits.json, which says who is labelled (labeled_N) and who is for "
        "testing",
        cases="80 to train on, the first N of them labelled, and 20 to test on, by the standard lists",
        obtained="the .h5 files from github.com/yulequan/UA-MT, made of the challenge's data "
        "(atriaseg2018.cardiacatlas.org), whose terms hold",
        disk="0.6 GB",
        labelled=16,
    ),
    "BraTS": PublicDataset(
        module="brats",
        title="gliomas in MRI, BraTS 2019; FLAIR and the whole tumour as in the paper, other sequences and nnU-Net's "
        "regions with --channels and --regions",
        layout="MICCAI_BraTS_2019_Data_Training with HGG/CASE and LGG/CASE, in each CASE_flair, _t1, _t1ce, _t2 and "
        "_seg (.nii.gz or .nii)",
        cases="250 to train on, the first N of them labelled, 25 for validation, 60 to test on: lists of SSL4MIS",
        obtained="www.med.upenn.edu/cbica/brats2019.html, on registration, for research under the challenge's terms",
        disk="0.8 GB a sequence",
        labelled=50,
        options=(
            DatasetOption("channels", "sequences; default: flair", "several", ("flair", "t1", "t1ce", "t2")),
            DatasetOption("regions", "whole tumour, core and enhancing tumour as regions", "flag"),
        ),
    ),
    "BTCV": PublicDataset(
        module="btcv",
        title="13 organs in abdominal CT, challenge Beyond the Cranial Vault",
        layout="RawData with Training/img/img0001.nii.gz and Training/label/label0001.nii.gz, numbers 0001 to 0010 and "
        "0021 to 0040",
        cases="18 to train on, of which the first N of MagicNet's shuffled list are labelled, and 12 to test on",
        obtained="synapse.org, syn3193805, file Abdomen/RawData.zip, on registration, under the challenge's terms",
        disk="1.5 GB",
        labelled=7,
    ),
    "MACT": PublicDataset(
        module="mact",
        title="8 organs in abdominal CT: TCIA's Pancreas-CT and BTCV, reference segmentations of Gibson et al.",
        layout="cropping.csv, label_tcia_multiorgan and label_btcv_multiorgan (Zenodo), images PANCREAS_0001 (DICOM "
        "folder or NIfTI file) and img0001.nii.gz, anywhere below SOURCE; TCIA has withdrawn PANCREAS_0025 since, so "
        "that --allow-missing is needed without it",
        cases="70 to train on and 20 to test on, from fold --fold of MagicNet; --list magicnet: its own 66 and 22",
        obtained="label maps: zenodo.org/records/1169361 (CC BY 4.0); images: TCIA's Pancreas-CT (CC BY 3.0), and BTCV "
        "as above, Training and Testing",
        disk="4 GB",
        labelled=14,
        options=(
            DatasetOption("fold", "of MagicNet; default: 0", "one", (0, 1, 2, 3)),
            DatasetOption("list", "70 and 20 cases, or 66 and 22; default: paper", "one", ("paper", "magicnet")),
        ),
    ),
    "AbdomenCT-1K": PublicDataset(
        module="abdomenct_1k",
        title="liver, kidneys, spleen and pancreas in abdominal CT of many centres",
        layout="AbdomenCT-1K-ImagePart1 to 3 with Case_00001_0000.nii.gz and so on, and Mask with Case_00001.nii.gz",
        cases="1,000 masks in the order of their numbers: the first 900 to train on, the first N of them labelled, and "
        "the last 100 to test on; the paper has these numbers and names no list",
        obtained="zenodo.org/records/5903099, 5903846 and 5903769 (see github.com/JunMa11/AbdomenCT-1K), under the "
        "licences of the data sets that it is made of, not for commercial use",
        disk="about 100 GB",
        labelled=180,
    ),
    "ACDC": PublicDataset(
        module="acdc",
        title="ventricles and myocardium in cardiac MRI, challenge ACDC",
        layout="training/patient001 to 100 and testing/patient101 to 150, in each two frames "
        "patient001_frame01.nii.gz with patient001_frame01_gt.nii.gz",
        cases="100 patients to train on, the first N of them labelled (two frames each), and 50 to test on, as the "
        "organisers divide them",
        obtained="humanheart-project.creatis.insa-lyon.fr/database (CC BY-NC-SA 4.0)",
        disk="0.2 GB",
        labelled=7,
    ),
    "nnunet": PublicDataset(
        module="nnunet",
        title="any labelled data set in nnU-Net's raw layout",
        layout="name or number in nnUNet_raw, or a folder with dataset.json, imagesTr and labelsTr",
        cases="N labelled cases stay, in the order of their names or drawn with --seed, the others become unlabelled; "
        "to test on: imagesTs with labelsTs, or, without these, a fifth of the labelled cases (--test)",
        obtained="yours",
        disk="as much as the source",
        labelled=4,
        options=(
            DatasetOption(
                "test",
                "labelled cases to hold out for testing; default: none where imagesTs have a truth, else a fifth",
                "count",
            ),
        ),
    ),
}
"""By the name that ``sfr_convert`` takes; the data set is called so too, but for ``nnunet``."""
