"""Small data sets in the layouts of the public ones, with the oddities that those are known for.

Every volume is a noisy box with a slab for each organ, of its own CT number; sizes are those of toys.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_sfr.conversion.lists import CaseLists

SHAPE = (24, 22, 20)
"""(x, y, z) of a volume that can be planned and trained on."""
TINY = (7, 6, 5)
"""(x, y, z) of one that is only converted."""
RAS = np.diag([1.0, 1.0, 1.0, 1.0])
OBLIQUE = np.array([[0.99957, 0.0295, 0, -3], [-0.0291, 0.99957, 0, 4], [0, 0, 2.5, -7], [0, 0, 0, 1]])
"""Rounded in the header, so that the first two axes are not quite at right angles (cosine 4e-4)."""


def volume(
    values: Sequence[int], *, shape: tuple[int, int, int] = TINY, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image and label (x, y, z): a slab for every label value, in the lower, left and back half of the volume."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    inside = label[shape[0] // 5 : -(shape[0] // 5), 1 : shape[1] // 2 + 1, : shape[2] // 2 + 1]
    for value, part in zip(values, np.array_split(np.arange(inside.shape[0]), len(values)), strict=True):
        inside[part] = value
    image = -100 + 40 * label.astype(np.int16) + rng.integers(-5, 6, shape, np.int16)
    image[label == 0] += rng.integers(-300, 300, shape, np.int16)[label == 0]
    return image.astype(np.int16), label


def write(file: Path, voxels: NDArray[Any], affine: NDArray[np.float64] = RAS) -> Path:
    """Write (x, y, z) as NIfTI, in its own type."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return file


def brats(root: Path, cases: Iterable[str], *, shape: tuple[int, int, int] = TINY, ending: str = ".nii.gz") -> Path:
    """Case folders, every second one in LGG; truths are uint8 with the values 1, 2 and 4."""
    for index, case in enumerate(cases):
        folder = root / ("LGG" if index % 2 else "HGG") / case
        image, label = volume((1, 2, 4), shape=shape, seed=index)
        for channel, sequence in enumerate(("flair", "t1", "t1ce", "t2")):
            write(folder / f"{case}_{sequence}{ending}", image + np.int16(100 * channel))
        write(folder / f"{case}_seg{ending}", label)
    return root


def btcv(root: Path, cases: Iterable[str], *, shape: tuple[int, int, int] = TINY, organs: int = 13) -> Path:
    """``Training`` and ``Testing``: numbers with a gap, every third header oblique, volumes without a truth."""
    training = root / "RawData" / "Training"
    for index, case in enumerate(cases):
        image, label = volume(range(1, organs + 1), shape=shape, seed=index)
        affine = OBLIQUE if index % 3 == 0 else np.diag([-0.8, 0.8, 3.0, 1.0])
        write(training / "img" / f"img{case}.nii.gz", image, affine)
        write(training / "label" / f"label{case}.nii.gz", label, affine)
    write(root / "RawData" / "Testing" / "img" / "img0061.nii.gz", volume((1,), shape=shape)[0])
    return root


MACT_ORGANS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 14)
MACT_SHAPE = (20, 16, 14)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def mact(root: Path, ids: Iterable[int], *, shape: tuple[int, int, int] = MACT_SHAPE) -> Path:
    """43 cases of TCIA (those after the ninth as NIfTI files, the others as DICOM), the others of BTCV.

    Label maps of TCIA lie upside down against their header in every even case; BTCV's axes are stored from the back to
    the front. The box of ``cropping.csv`` is the same for all.
    """
    rows = []
    width, depth, height = shape
    box = {"extent_left": 2, "extent_right": width - 2, "extent_ant": 3, "extent_post": depth - 1}
    box |= {"extent_inf": 0, "extent_sup": height - 2}
    for number in ids:
        tcia = number <= 43
        original = number + 1 if tcia else number - 43 if number - 43 <= 10 else number - 33
        image, label = volume(MACT_ORGANS if not tcia else (1, 3, 4, 5, 6, 7, 11, 14), shape=shape, seed=number)
        rows.append({"id": number, "publisher": "TCIA" if tcia else "BTCV", "original_id": original, **box})
        if tcia:
            name = f"PANCREAS_{original:04d}"
            if number > 9:
                write(root / "Pancreas-CT" / f"{name}.nii.gz", image, LPS)
            else:
                write_dicom(root / "Pancreas-CT" / name / "study" / "series", image)
            stored = label[:, :, ::-1] if number % 2 == 0 else label
            write(root / "labels" / "label_tcia_multiorgan" / f"label{original:04d}.nii.gz", stored, LPS)
        else:
            back_to_front = np.diag([-1.0, 1.0, 1.0, 1.0])
            part = "Training" if original <= 40 else "Testing"
            write(root / "RawData" / part / "img" / f"img{original:04d}.nii.gz", image[:, ::-1], back_to_front)
            write(root / "label_btcv_multiorgan" / f"label{original:04d}.nii.gz", label[:, ::-1], back_to_front)
    with (root / "cropping.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_dicom(folder: Path, voxels: NDArray[np.int16]) -> None:
    """A series of one file a slice, (x, y, z) in DICOM's axes, 1 mm."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(voxels.shape[2]):
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[:, :, index].T[None]))
        for tag, value in {
            "0008|0060": "CT",
            "0020|000e": f"1.2.826.0.1.{zlib.crc32(str(folder).encode())}",
            "0020|0013": str(index),
            "0020|0032": f"0\\0\\{index}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "1",
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"1-{index:03d}.dcm"))
        writer.Execute(image)


def abdomenct_1k(
    root: Path, numbers: Iterable[int], *, shape: tuple[int, int, int] = TINY, without_mask: Iterable[int] = ()
) -> Path:
    """Images in three parts and masks, with gaps in the numbers; some images have no mask."""
    for number in (*numbers, *without_mask):
        part = 1 if number <= 400 else 2 if number <= 800 else 3
        image, label = volume((1, 2, 3, 4), shape=shape, seed=number)
        write(root / f"AbdomenCT-1K-ImagePart{part}" / f"Case_{number:05d}_0000.nii.gz", image)
        if number not in without_mask:
            write(root / "Mask" / f"Case_{number:05d}.nii.gz", label)
    return root


def acdc(root: Path, patients: Iterable[int], *, shape: tuple[int, int, int] = TINY) -> Path:
    """Two frames a patient with their truths, ``Info.cfg`` and the whole series, which is not read."""
    for number in patients:
        patient = f"patient{number:03d}"
        folder = root / "database" / ("training" if number <= 100 else "testing") / patient
        for frame in (1, 8 + number % 5):
            image, label = volume((1, 2, 3), shape=shape, seed=100 * number + frame)
            write(folder / f"{patient}_frame{frame:02d}.nii.gz", image, np.diag([1.5, 1.5, 10.0, 1.0]))
            write(folder / f"{patient}_frame{frame:02d}_gt.nii.gz", label, np.diag([1.5, 1.5, 10.0, 1.0]))
        write(folder / f"{patient}_4d.nii.gz", np.zeros((2, 2, 2, 3), np.int16))
        (folder / "Info.cfg").write_text("ED: 1\n")
    return root


def few(lists: CaseLists, *, training: int, test: int) -> tuple[str, ...]:
    """The first cases of both lists, and the first validation case."""
    return (*lists.training[:training], *lists.test[:test], *lists.validation[:1])


def read(file: Path) -> NDArray[Any]:
    """(x, y, z), by nnU-Net's library."""
    array: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).transpose()
    return array


def label_names(dataset_json: Mapping[str, Any]) -> list[str]:
    return list(dataset_json["labels"])
