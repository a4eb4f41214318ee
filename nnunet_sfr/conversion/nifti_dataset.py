"""Cases of NIfTI files, one or several images each: checked file by file, and written as nnU-Net's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_sfr.conversion.nifti import (
    read_affine,
    read_volume,
    require_grid,
    require_values,
    write_image,
    write_label_like,
)
from nnunet_sfr.conversion.source_dataset import ENDING, CaseCheck, Split
from nnunet_sfr.conversion.volume import mapped, right_angled
from nnunet_sfr.errors import UserError


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Args:
        images: one for each channel.
        label: None where there is none.
    """

    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class NiftiCheck:
    """A case of NIfTI files: a :class:`nnunet_sfr.conversion.source_dataset.CaseCheck`.

    Args:
        case: its name.
        content: its files.
        known: label values of the source, and their names.
    """

    case: str
    content: CaseFiles
    known: Mapping[int, str]

    @property
    def files(self) -> tuple[Path, ...]:
        label = () if self.content.label is None else (self.content.label,)
        return (*self.content.images, *label)

    def problem(self) -> str | None:
        first, *others = self.content.images
        return problem_of(self._checks(first, others))

    def _checks(self, first: Path, others: Sequence[Path]) -> Iterable[Callable[[], object]]:
        yield lambda: _require_image(first, self.case)
        for file in others:
            yield partial(require_grid, file, first, self.case)
            yield partial(_require_image, file, self.case)
        label = self.content.label
        if label is not None:
            yield lambda: require_grid(label, first, self.case)
            yield lambda: require_values(label, read_volume(label).voxels, self.case, self.known)


def problem_of(checks: Iterable[Callable[[], object]]) -> str | None:
    """The message of the first check that raises a UserError; None if none does."""
    try:
        for check in checks:
            check()
    except UserError as error:
        return str(error)
    return None


def _require_image(file: Path, case: str) -> None:
    shape, affine = read_affine(file)
    right_angled(affine, shape, file)
    if not read_volume(file).voxels.any():
        raise UserError(f"{file}: case {case} has no voxel but zeros; replace or remove it")


@dataclass(frozen=True)
class NiftiDataset:
    """NIfTI files that are copied, with their label values mapped, a
    :class:`nnunet_sfr.conversion.source_dataset.SourceDataset`.

    Args:
        cases: files by case.
        split: who is what.
        dataset_json: of nnU-Net.
        known: label values of the source, and their names.
        origin: for ``dataset.json``.
        record: for ``sfr_convert.json``.
        mapping: new value by value of the source; None to keep them.
    """

    cases: Mapping[str, CaseFiles]
    split: Split
    dataset_json: Mapping[str, Any]
    known: Mapping[int, str]
    origin: Mapping[str, Any]
    record: Mapping[str, Any]
    mapping: Mapping[int, int] | None = None

    def has_label(self, case: str) -> bool:
        return self.cases[case].label is not None

    def check(self, case: str) -> CaseCheck:
        return NiftiCheck(case, self.cases[case], self.known)

    def write_images(self, case: str, folder: Path) -> None:
        for channel, file in enumerate(self.cases[case].images):
            write_image(file, folder / f"{case}_{channel:04d}{ENDING}")

    def write_label(self, case: str, folder: Path) -> None:
        label = self.cases[case].label
        assert label is not None, f"{case} has no label"
        mapping = {value: value for value in self.known} if self.mapping is None else self.mapping
        voxels = mapped(read_volume(label).voxels, mapping)
        write_label_like(voxels, self._written_image(case, folder), folder / f"{case}{ENDING}")

    def _written_image(self, case: str, folder: Path) -> Path:
        """The first channel lies in the data set already, whose other folders begin with images."""
        name = f"{case}_0000{ENDING}"
        return next(file for file in folder.parent.glob(f"images*/{name}"))
