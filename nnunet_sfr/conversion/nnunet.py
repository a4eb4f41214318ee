"""Any data set in nnU-Net's raw layout: a few cases stay labelled, the others become unlabelled, truth kept aside.

So a benchmark can be run on data that are at hand. Files are copied as they are, in any format that nnU-Net reads.
Test cases are those of ``imagesTs`` that have a truth in ``labelsTs``; without any, a fifth of the labelled cases is
held out (``--test`` says how many). Images in ``imagesUl`` stay unlabelled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_sfr.conversion.lists import choose_labelled
from nnunet_sfr.conversion.source_dataset import CaseCheck, ConversionRequest, SourceDataset, Split
from nnunet_sfr.data.checks import case_problem, label_values
from nnunet_sfr.data.dataset_json import read_raw_dataset_json
from nnunet_sfr.data.raw_cases import RawCase, RawDataset, list_labelled, list_unlabelled
from nnunet_sfr.data.readers import find_reader
from nnunet_sfr.data.sidecars import SPACING_ENDING, renamed_sidecars
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import DATASET_JSON, RAW, TEST_IMAGES, TEST_LABELS, UNLABELLED_IMAGES, nnunet_root
from nnunet_sfr.wording import first_names

TEST_SHARE = 5
"""One labelled case in how many is held out where no test cases have a truth."""


def open_source_dataset(request: ConversionRequest) -> SourceDataset:
    """Open a data set by its folder, or by its name or number in ``nnUNet_raw``; ``test`` is the option.

    Raises:
        UserError: there is no such data set, it is not in nnU-Net's layout, or it has too few labelled cases.
    """
    folder = _folder(request.source)
    dataset_json = read_raw_dataset_json(folder / DATASET_JSON)
    labelled = list_labelled(folder, dataset_json)
    pool = list_unlabelled(folder, dataset_json) if (folder / UNLABELLED_IMAGES).is_dir() else ()
    test = _test_cases(folder, dataset_json) if "test" not in request.options else ()
    cases = {case.identifier: case for case in (*pool, *test, *labelled)}
    if len(cases) < len(pool) + len(test) + len(labelled):
        names = [case.identifier for case in (*pool, *test, *labelled)]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(
            f"{folder}: {first_names(twice)}: in two of imagesTr, imagesUl and imagesTs; rename one of each"
        )
    split = _split(request, folder, [case.identifier for case in labelled], [case.identifier for case in test])
    split = Split(split.labelled, (*split.unlabelled, *(case.identifier for case in pool)), split.test)
    raw = RawDataset(folder, dataset_json, labelled, pool)
    reader = find_reader(dataset_json, labelled[0].images[0], "the first image")
    return NNUNetDataset(raw, cases, split, reader, label_values(raw), request.seed)


@dataclass(frozen=True)
class NNUNetDataset:
    """A data set in nnU-Net's layout, to be divided: a :class:`nnunet_sfr.conversion.source_dataset.SourceDataset`."""

    raw: RawDataset
    cases: Mapping[str, RawCase]
    split: Split
    reader: type[BaseReaderWriter]
    labels: tuple[int, ...]
    seed: int | None

    @property
    def dataset_json(self) -> dict[str, Any]:
        """Its own, without lists of files, which are other ones now."""
        return {key: value for key, value in self.raw.dataset_json.items() if key not in ("dataset", "sfr_convert")}

    @property
    def origin(self) -> dict[str, Any]:
        drawn = "in the order of their names" if self.seed is None else f"drawn with seed {self.seed}"
        return {"dataset": self._name, "source": self.raw.folder.name, "list": drawn}

    @property
    def _name(self) -> str:
        return re.sub(r"^Dataset\d{3}_", "", self.raw.folder.name)

    @property
    def record(self) -> dict[str, Any]:
        seed = "" if self.seed is None else f"_seed{self.seed}"
        return {
            "dataset": f"{self._name}_{len(self.split.labelled)}labelled{seed}",
            "source": str(self.raw.folder.resolve()),
            "seed": self.seed,
        }

    def has_label(self, case: str) -> bool:
        return self.cases[case].label is not None

    def check(self, case: str) -> CaseCheck:
        return NNUNetCheck(self.cases[case], self.reader, self.raw.num_channels, self.labels)

    def write_images(self, case: str, folder: Path) -> None:
        ending = self.raw.dataset_json["file_ending"]
        images = self.cases[case].images
        _copy({file: f"{case}_{channel:04d}{ending}" for channel, file in enumerate(images)}, folder, ending)

    def write_label(self, case: str, folder: Path) -> None:
        label = self.cases[case].label
        assert label is not None, f"{case} has no label"
        ending = self.raw.dataset_json["file_ending"]
        _copy({label: f"{case}{ending}"}, folder, ending, is_label=True)


def _copy(names: Mapping[Path, str], folder: Path, ending: str, *, is_label: bool = False) -> None:
    """Copy the files of a case under new names, and what belongs to them.

    Raises:
        UserError: two headers name voxels in files of one name, which cannot both lie in the folder.
    """
    sources: dict[str, Path] = {}
    for file, name in names.items():
        sources[name] = file
        for sidecar, new in renamed_sidecars(file, name, ending, is_label=is_label).items():
            # of several channels, nnU-Net takes the spacing that belongs to the first
            first = sources.setdefault(new, sidecar)
            if (first != sidecar and not new.endswith(SPACING_ENDING)) or (folder / new).exists():
                raise UserError(f"{sidecar}: {folder.name} would have two files of this name; rename one of the two")
    for name, file in sources.items():
        shutil.copyfile(file, folder / name)


@dataclass(frozen=True)
class NNUNetCheck:
    """A case, read by nnU-Net's reader: a :class:`nnunet_sfr.conversion.source_dataset.CaseCheck`."""

    case: RawCase
    reader: type[BaseReaderWriter]
    num_channels: int
    labels: tuple[int, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.case.files

    def problem(self) -> str | None:
        return case_problem(self.case, self.reader, num_channels=self.num_channels, labels=self.labels)


def _folder(source: Path) -> Path:
    """A folder, or a data set of ``nnUNet_raw`` by name or number; the other folders of nnU-Net are not needed."""
    if source.is_dir():
        return source
    root, name = nnunet_root(RAW), str(source)
    if name.isdecimal():
        found = sorted(root.glob(f"Dataset{int(name):03d}_*"))
    else:
        found = [root / name] if source.name == name and (root / name).is_dir() else []
    if len(found) != 1:
        what = "no such data set" if not found else f"{len(found)} data sets of this number"
        raise UserError(f"{root}: has {what}: {name}; give SOURCE as name, number or folder of a raw data set")
    return found[0]


def _test_cases(folder: Path, dataset_json: dict[str, Any]) -> tuple[RawCase, ...]:
    """Those of ``imagesTs`` that have a truth."""
    if not (folder / TEST_IMAGES).is_dir() or not any((folder / TEST_IMAGES).iterdir()):
        return ()
    ending = dataset_json["file_ending"]
    cases = list_unlabelled(folder, dataset_json, images=TEST_IMAGES)
    truths = {case.identifier: folder / TEST_LABELS / f"{case.identifier}{ending}" for case in cases}
    return tuple(replace(case, label=truths[case.identifier]) for case in cases if truths[case.identifier].is_file())


def _split(request: ConversionRequest, folder: Path, labelled: list[str], test: Iterable[str]) -> Split:
    """Divide the labelled cases; the test cases come out of them where there are no others."""
    test = tuple(test)
    held_out: int = request.options.get("test", 0 if test else max(1, len(labelled) // TEST_SHARE))
    most = len(labelled) - held_out - 1
    if not 1 <= request.labelled <= most:
        kept = f" beside {held_out} to test on" if held_out else ""
        raise UserError(
            f"{folder}: has {len(labelled)} labelled cases, so --labelled can be from 1 to {max(most, 0)}{kept}, got "
            f"{request.labelled}; one case at least has to become unlabelled"
        )
    order = choose_labelled(labelled, len(labelled), request.seed)
    training, drawn_test = order[: len(order) - held_out], order[len(order) - held_out :]
    return Split(
        tuple(training[: request.labelled]),
        tuple(sorted(training[request.labelled :])),
        (*test, *sorted(drawn_test)),
    )
