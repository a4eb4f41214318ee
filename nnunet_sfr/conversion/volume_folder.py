"""A folder of volumes with its split.

It holds ``images/CASE.nii.gz``, ``labels/CASE.nii.gz`` and ``splits.json``, which names all cases (``order``), the
labelled ones (``labeled_N`` for one or more numbers N) and those to test on (``development_test``). Every other case is
unlabelled: its label, if there is one, is kept from training and used for scoring alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunet_sfr.conversion.lists import choose_labelled
from nnunet_sfr.conversion.nifti import require_grid
from nnunet_sfr.conversion.nifti_dataset import CaseFiles, NiftiCheck
from nnunet_sfr.conversion.source_dataset import ENDING, CaseCheck, DatasetDescription, Split
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json

VOLUME_SPLITS = "splits.json"
TEST_KEY = "development_test"
LAYOUT = f"images/, labels/ and {VOLUME_SPLITS}"


@dataclass(frozen=True)
class VolumeFolder:
    """A checked folder of volumes and its split: a :class:`nnunet_sfr.conversion.source_dataset.SourceDataset`.

    Args:
        folder: of the volumes.
        split: who is what.
        content: of ``dataset.json``.
        record: for ``sfr_convert.json``.
    """

    folder: Path
    split: Split
    content: DatasetDescription
    record: Mapping[str, Any] = field(default_factory=dict)

    def image(self, case: str) -> Path:
        return self.folder / "images" / f"{case}{ENDING}"

    def label(self, case: str) -> Path:
        return self.folder / "labels" / f"{case}{ENDING}"

    def has_label(self, case: str) -> bool:
        return self.label(case).is_file()

    def with_truth(self, cases: Iterable[str]) -> tuple[str, ...]:
        """The cases that can be scored."""
        return tuple(case for case in cases if self.has_label(case))

    @property
    def dataset_json(self) -> dict[str, Any]:
        return self.content.as_json()

    @property
    def origin(self) -> None:
        """Nothing: the folder says no more than ``sfr_convert.json``."""

    def check(self, case: str) -> CaseCheck:
        known = {value: name for name, value in self.content.labels.items() if isinstance(value, int)}
        return NiftiCheck(
            case, CaseFiles((self.image(case),), self.label(case) if self.has_label(case) else None), known
        )

    def write_images(self, case: str, folder: Path) -> None:
        shutil.copyfile(self.image(case), folder / f"{case}_0000{ENDING}")

    def write_label(self, case: str, folder: Path) -> None:
        shutil.copyfile(self.label(case), folder / f"{case}{ENDING}")


def open_volume_folder(
    folder: Path, content: DatasetDescription, *, labelled: int, seed: int | None = None
) -> VolumeFolder:
    """Read the split and check that every file it needs is there and that labels fit their images.

    Args:
        folder: as the module describes it.
        content: of the ``dataset.json`` to write.
        labelled: chooses ``labeled_<N>`` in ``splits.json``; with a seed, any number of the cases that are not for
            testing.
        seed: draws the labelled cases; None for those of ``splits.json``.

    Raises:
        UserError: naming the file or the case, and the remedy.
    """
    for name in ("images", "labels"):
        if not (folder / name).is_dir():
            raise UserError(f"{folder / name}: no such folder; a folder of volumes has {LAYOUT}")
    split = _read_split(folder / VOLUME_SPLITS, labelled, seed)
    volumes = VolumeFolder(folder, split, content)
    for case in split.labelled + split.unlabelled + split.test:
        _require_file(volumes.image(case), case)
    for case in split.labelled:
        _require_file(volumes.label(case), case)
    for case in volumes.with_truth(split.labelled + split.unlabelled + split.test):
        _check_geometry(volumes, case)
    return volumes


def _read_split(file: Path, labelled: int, seed: int | None) -> Split:
    content = read_json(file, f"it needs the keys order, labeled_N and {TEST_KEY}")
    order, key = _case_list(file, content, "order"), f"labeled_{labelled}"
    if seed is not None:
        test = _case_list(file, content, TEST_KEY)
        training = [case for case in order if case not in test]
        if labelled >= len(training):
            raise UserError(f"{file}: has {len(training)} cases to train on; choose a --labelled below that")
        content[key] = list(choose_labelled(training, labelled, seed))
    if key not in content:
        known = ", ".join(name.removeprefix("labeled_") for name in content if name.startswith("labeled_"))
        raise UserError(f"{file}: has no {key}; choose --labelled from: {known or 'nothing, no labeled_N is there'}")
    chosen, test = _case_list(file, content, key), _case_list(file, content, TEST_KEY)
    for name, cases in ((key, chosen), (TEST_KEY, test)):
        _refuse(file, sorted(set(cases) - set(order)), f"in {name} but not in order; add to order")
    _refuse(file, sorted(set(chosen) & set(test)), f"both in {key} and in {TEST_KEY}; keep in one")
    unlabelled = tuple(case for case in order if case not in {*chosen, *test})
    if not unlabelled:
        raise UserError(f"{file}: leaves no unlabelled case; SFR needs cases outside {key} and {TEST_KEY}")
    return Split(chosen, unlabelled, test)


def _case_list(file: Path, content: dict[str, Any], key: str) -> tuple[str, ...]:
    cases = content.get(key)
    if not isinstance(cases, list) or not cases or not all(isinstance(case, str) for case in cases):
        raise UserError(f"{file}: {key} must be a list of case names that is not empty, got {cases!r}")
    _refuse(
        file, sorted({case for case in cases if cases.count(case) > 1}), f"more than once in {key}; keep one of each"
    )
    return tuple(cases)


def _refuse(file: Path, cases: Sequence[str], why: str) -> None:
    if cases:
        raise UserError(f"{file}: {', '.join(cases)}: {why}")


def _require_file(file: Path, case: str) -> None:
    if not file.is_file():
        raise UserError(f"{file}: not found; add it or take {case} out of {VOLUME_SPLITS}")


def _check_geometry(volumes: VolumeFolder, case: str) -> None:
    """Headers only: a label on another grid than its image would be scored or trained on shifted."""
    image, label = volumes.image(case), volumes.label(case)
    for file in (image, label):
        _require_one_channel(file)
    require_grid(label, image, case)


def _require_one_channel(file: Path) -> None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise UserError(f"{file}: cannot be read as NIfTI; replace it") from None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise UserError(f"{file}: is not a 3D volume with one channel, the only kind that can be converted")
