"""MACT: 90 abdominal CT with the published reference segmentations of eight organs (Gibson et al., Zenodo 1169361).

The record has label maps (``label_tcia_multiorgan``, ``label_btcv_multiorgan``, ``label0001.nii.gz`` and so on) and
``cropping.csv``. The images are those of TCIA's Pancreas-CT (43: ``PANCREAS_0001``, DICOM folders or NIfTI files) and
of BTCV (47: ``img0001.nii.gz`` in ``Training/img`` and ``Testing/img``). All of it lies anywhere below one folder.

* **Crop boxes.** Organs are labelled inside the box of ``cropping.csv`` alone (columns ``extent_left``, ``_right``,
  ``_ant``, ``_post``, ``_inf``, ``_sup``), so image and label are cropped to it. The numbers are voxel indices in
  DICOM's axes: they grow to the patient's left, back and head, whatever the order of the file.
* **Flipped axes.** Label maps of TCIA lie upside down or back to front against images that were converted by other
  tools. The header is believed first; where one of the flips of the label gives organs of clearly more uniform CT
  numbers, that flip is taken and noted in ``sfr_convert.json``; where two are alike, the case is refused.
* **Lists.** The cases 0001 to 0090 are those of the column ``id``. ``lists/MACT.json`` has the four folds of MagicNet,
  which the paper follows: https://github.com/DeepMed-Lab-ECNU/MagicNet/tree/316d7ee93c4b0c9d6c2272fb928f7f56585a1108
  It trains on 66 and tests on 22 of them (``--list magicnet``). The paper has 70 and 20 without naming them; **the rule
  here**: the first 20 test cases of the fold, and all others to train on, MagicNet's first, in its order.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.lists import LISTS, CaseLists, split_by_lists
from nnunet_sfr.conversion.nifti import index_files, read_volume, require_values, write_label_like, write_volume
from nnunet_sfr.conversion.nifti_dataset import problem_of
from nnunet_sfr.conversion.source_dataset import (
    ENDING,
    CaseCheck,
    ConversionRequest,
    DatasetDescription,
    SourceDataset,
    Split,
)
from nnunet_sfr.conversion.volume import LPS_TO_RAS, Volume, mapped, right_angled
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.wording import last_line, times

ORGANS = {
    1: "spleen",
    3: "left_kidney",
    4: "gallbladder",
    5: "oesophagus",
    6: "liver",
    7: "stomach",
    11: "pancreas",
    14: "duodenum",
}
"""By their value in the reference segmentations; the order of the labels here."""
OTHERS = {
    2: "right kidney",
    8: "aorta",
    9: "inferior vena cava",
    10: "portal and splenic veins",
    12: "right adrenal gland",
    13: "left adrenal gland",
}
"""Labelled in the BTCV part alone; background here, as in the paper."""
SOURCE_LABELS = {0: "background", **ORGANS, **OTHERS}
MAPPING = {0: 0, **dict.fromkeys(OTHERS, 0), **{value: index for index, value in enumerate(ORGANS, start=1)}}
LABELS = {"background": 0, **{name: index for index, name in enumerate(ORGANS.values(), start=1)}}
CASES, FOLDS, PAPER_TEST = 90, 4, 20
EXTENTS = (("extent_left", "extent_right"), ("extent_ant", "extent_post"), ("extent_inf", "extent_sup"))
CROPPING = "cropping.csv"
CLEARLY = 0.8
"""A flip is believed if the spread of CT numbers in organs falls to this share of that of any other way."""
_AXES = "xyz"
_LABEL_FOLDERS = {"TCIA": "label_tcia_multiorgan", "BTCV": "label_btcv_multiorgan"}

Flip = tuple[int, ...]
"""Axes of a label that are turned round."""


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open images, label maps and crop boxes; ``fold`` and ``list`` are the options.

    Raises:
        UserError: ``cropping.csv`` is missing or damaged, or images or label maps are missing or doubled.
    """
    root = request.source
    rows = _read_rows(_find_cropping(root))
    images, labels = _index_images(root), _index_labels(root)
    cases = {}
    for case, row in rows.items():
        image, label = images.get(row.key), labels.get(row.key)
        if image is not None and label is not None:
            cases[case] = MACTCase(case, image, label, row.box)
    if not cases:
        raise UserError(
            f"{root}: has no image with its label map, PANCREAS_0001 or img0001 and label0001; check SOURCE"
        )
    fold, variant = request.options.get("fold", 0), request.options.get("list", "paper")
    split, missing = split_by_lists(fold_lists(fold, variant), cases, request)
    record = {"dataset": "MACT", "source": str(root.resolve()), "seed": request.seed, "fold": fold, "list": variant}
    return MACTDataset(cases, split, {**record, "missing": list(missing)})


def fold_lists(fold: int, variant: str = "paper") -> CaseLists:
    """The lists of one of MagicNet's folds: its own 66 and 22 cases (``magicnet``), or 70 and 20 (``paper``).

    Args:
        fold: from 0 to 3.
        variant: ``magicnet`` or ``paper``.
    """
    content = read_json(LISTS / "MACT.json", "install the package again")["folds"][fold]
    training, test = content["train"], content["test"]
    if variant == "magicnet":
        return CaseLists(tuple(training[:66]), tuple(test[:22]))
    return CaseLists((*training, *test[PAPER_TEST:]), tuple(test[:PAPER_TEST]))


@dataclass(frozen=True)
class CroppingRow:
    """One line of ``cropping.csv``.

    Args:
        key: publisher and the number that it gave the image.
        box: from and to before which voxel, to the left, back and head.
    """

    key: tuple[str, str]
    box: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MACTCase:
    """One case, which is a check too: a :class:`nnunet_sfr.conversion.source_dataset.CaseCheck`.

    Args:
        case: its name.
        image: NIfTI file, or folder with DICOM files somewhere in it.
        label: NIfTI file.
        box: of ``cropping.csv``.
    """

    case: str
    image: Path
    label: Path
    box: tuple[tuple[int, int], ...]

    @property
    def files(self) -> tuple[Path, ...]:
        images = sorted(self.image.rglob("*.dcm")) if self.image.is_dir() else [self.image]
        return (*images, self.label)

    def problem(self) -> str | None:
        return problem_of(self._checks())

    def _checks(self) -> Iterable[Callable[[], object]]:
        yield lambda: require_values(self.label, read_volume(self.label).voxels, self.case, SOURCE_LABELS)
        yield self.aligned

    def aligned(self) -> tuple[Volume, Volume, Flip]:
        """Image and label, cropped, in DICOM's axes, and what of the label was flipped.

        Raises:
            UserError: a file cannot be read, sizes differ, the box leaves the image, or no flip is the right one.
        """
        image, label = read_image(self.image, self.case).oriented(), read_volume(self.label).oriented()
        if image.voxels.shape != label.voxels.shape:
            sizes = times(label.voxels.shape), times(image.voxels.shape)
            raise UserError(f"{self.label}: case {self.case} has {sizes[0]} voxels, but its image has {sizes[1]}")
        for (start, end), length, (first, last) in zip(self.box, image.voxels.shape, EXTENTS, strict=True):
            if not 0 <= start < end <= length:
                raise UserError(
                    f"{self.label}: case {self.case}: {CROPPING} has {first} {start} and {last} {end}, but the image "
                    f"has {length} voxels there; check that image and table belong together"
                )
        flip = find_flip(image.voxels, label.voxels, self.label, self.case)
        turned = Volume(np.flip(label.voxels, flip), image.affine)
        return image.crop(self.box), turned.crop(self.box), flip


def find_flip(image: NDArray[Any], label: NDArray[Any], file: Path, case: str) -> Flip:
    """Which axes of a label map have to be turned round to lie on its image: none, if the header is right.

    An organ is of one tissue, so its CT numbers spread least where the label lies right.

    Args:
        image: CT numbers (x, y, z) in DICOM's axes.
        label: the same shape.
        file: of the label, for the message.
        case: for the message.

    Raises:
        UserError: two ways are equally good, and neither is that of the header.
    """
    spreads = {flip: _spread(image, np.flip(label, flip)) for flip in ((), (2,), (1,), (1, 2))}
    best = min(spreads, key=lambda flip: spreads[flip])
    if best == () or spreads[best] > CLEARLY * spreads[()]:
        return ()
    second = min(spread for flip, spread in spreads.items() if flip != best)
    if spreads[best] >= CLEARLY * second:
        raise UserError(
            f"{file}: case {case} does not lie on its image as its header says, and more than one way of turning it "
            "round is as good; turn it yourself, and write it with the image's header"
        )
    return best


def _spread(image: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean over the organs of the difference between the quartiles of their CT numbers."""
    present = [value for value in ORGANS if np.any(label == value)]
    quartiles = [np.subtract(*np.percentile(image[label == value], [75, 25])) for value in present]
    return float(np.mean(quartiles)) if quartiles else 0.0


@dataclass(frozen=True)
class MACTDataset:
    """Cropped images and labels: a :class:`nnunet_sfr.conversion.source_dataset.SourceDataset`.

    Args:
        cases: by name.
        split: who is what.
        opened: the entries of ``sfr_convert.json`` about the source.
        flips: axes along which labels were turned round, by case, noted while they are written.
    """

    cases: Mapping[str, MACTCase]
    split: Split
    opened: Mapping[str, Any]
    flips: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        return {**self.opened, "flipped_labels": self.flips}

    @property
    def dataset_json(self) -> dict[str, Any]:
        return DatasetDescription(("CT",), LABELS).as_json()

    @property
    def origin(self) -> dict[str, Any]:
        return {
            "dataset": "MACT",
            "source": "https://zenodo.org/records/1169361",
            "list": f"MagicNet, fold {self.opened['fold']}, {self.opened['list']}",
        }

    def has_label(self, case: str) -> bool:
        return case in self.cases

    def check(self, case: str) -> CaseCheck:
        return self.cases[case]

    def write_images(self, case: str, folder: Path) -> None:
        image, _, _ = self.cases[case].aligned()
        affine = right_angled(image.affine, image.voxels.shape, self.cases[case].image)
        write_volume(Volume(image.voxels, affine), folder / f"{case}_0000{ENDING}")

    def write_label(self, case: str, folder: Path) -> None:
        _, label, flip = self.cases[case].aligned()
        image = next(iter(folder.parent.glob(f"images*/{case}_0000{ENDING}")))
        write_label_like(mapped(label.voxels, MAPPING), image, folder / f"{case}{ENDING}")
        if flip:
            self.flips[case] = "".join(_AXES[axis] for axis in flip)


def read_image(path: Path, case: str) -> Volume:
    """A CT from a NIfTI file, or from the one DICOM series below a folder.

    Args:
        path: a file, or a folder with DICOM files.
        case: named in errors.

    Raises:
        UserError: it cannot be read, or there is no series, or more than one.
    """
    if path.is_file():
        return read_volume(path)
    reader = sitk.ImageSeriesReader()
    folders = sorted({file.parent for file in path.rglob("*.dcm")})
    series = [(folder, name) for folder in folders for name in reader.GetGDCMSeriesIDs(str(folder))]
    if len(series) != 1:
        raise UserError(f"{path}: case {case} has {len(series)} DICOM series where it should have 1; get it again")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(*map(str, series[0])))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(f"{path}: case {case} cannot be read as DICOM ({last_line(error)}); get it again") from None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).transpose(), LPS_TO_RAS @ affine)


def _find_cropping(root: Path) -> Path:
    found = sorted(root.glob(CROPPING)) or sorted(root.glob(f"*/{CROPPING}"))
    if not found:
        raise UserError(f"{root}: has no {CROPPING}, which Zenodo 1169361 has beside the label maps; check SOURCE")
    return found[0]


def _read_rows(file: Path) -> dict[str, CroppingRow]:
    """By case, four digits."""
    columns = {"id", "publisher", "original_id", *(name for ends in EXTENTS for name in ends)}
    rows: dict[str, CroppingRow] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        lost = sorted(columns - set(reader.fieldnames or ()))
        if lost:
            raise UserError(f"{file}: has no column {', '.join(lost)}; get it again from Zenodo 1169361")
        for line in reader:
            try:
                case, original = f"{int(line['id']):04d}", f"{int(line['original_id']):04d}"
                box = tuple((int(line[first]), int(line[last])) for first, last in EXTENTS)
            except (TypeError, ValueError):
                raise UserError(f"{file}: line {reader.line_num} has no whole numbers; get it again") from None
            if case in rows:
                raise UserError(f"{file}: line {reader.line_num} has the id {case} a second time; get it again")
            rows[case] = CroppingRow((line["publisher"].strip().upper(), original), box)
    return rows


def _index_images(root: Path) -> dict[tuple[str, str], Path]:
    entries = list(_walk(root, r"PANCREAS_\d{4}"))
    tcia = index_files(entries, r"PANCREAS_(\d{4})(?:_0000)?(?:\.nii(?:\.gz)?)?")
    btcv = index_files(entries, r"img(\d{4})\.nii(?:\.gz)?")
    return {
        **{("TCIA", key): file for key, file in tcia.items()},
        **{("BTCV", key): file for key, file in btcv.items()},
    }


def _index_labels(root: Path) -> dict[tuple[str, str], Path]:
    labels: dict[tuple[str, str], Path] = {}
    for publisher, name in _LABEL_FOLDERS.items():
        files = [file for file in _walk(root, r"PANCREAS_\d{4}") if file.parent.name == name]
        found = index_files(files, r"label(\d{4})\.nii(?:\.gz)?")
        labels |= {(publisher, key): file for key, file in found.items()}
    return labels


def _walk(root: Path, leaf: str) -> Iterator[Path]:
    """All files below a folder, and folders whose names match, which are not entered."""
    for folder, names, files in os.walk(root):
        leaves = [name for name in names if re.fullmatch(leaf, name)]
        names[:] = sorted(set(names) - set(leaves))
        yield from (Path(folder, name) for name in (*leaves, *files))
