"""Which pictures the report needs, and a look at those cases that it does not know from an earlier run.

A picture's name holds a hash of what it is made from (image, label maps, colours, geometry), so one that is there is
the right one, and an older page keeps its own until the new page is complete. The numbers of a look are kept beside
them in one file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_sfr.atomic import remove_leftovers, write_json
from nnunet_sfr.data.cases import file_stamps
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.report import pictures as drawing
from nnunet_sfr.report.case_views import Look, Measured, look_at
from nnunet_sfr.report.mosaics import Stitching
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.report.pictures import SUFFIX, Colours
from nnunet_sfr.report.sources import LabelSource, Pool

PICTURES = "pictures"
MEASURED = "measured.json"
"""In the folder of pictures: by case what a look found, and the hash of what it looked at."""
DRAWING = 1
"""To be raised when pictures or numbers of earlier versions are to be made anew."""
CASES_FOR_A_PROCESS = 32
"""A process spends as long on its imports as on so many small cases."""
_DIGITS = 12
_PICTURE = re.compile(rf".+\.[0-9a-f]{{{_DIGITS}}}{re.escape(SUFFIX)}")


@dataclass(frozen=True)
class Subject:
    """One case before it is looked at.

    Args:
        case: identifier.
        spacing: (D, H, W) in mm.
        orientation: of the preprocessed array.
        sources: who labelled it, the latest last.
        centre_of: whose labels say where it is cut.
    """

    case: str
    spacing: tuple[float, float, float]
    orientation: Orientation
    sources: Sequence[LabelSource]
    centre_of: LabelSource | None


@dataclass(frozen=True)
class Wanted:
    """Which pictures are to be drawn.

    Args:
        cases: of these.
        sources: with the labels of these, by :attr:`LabelSource.key`.
        mosaics: cases with a mosaic, by source.
    """

    cases: frozenset[str]
    sources: frozenset[str]
    mosaics: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Seen:
    """A case that was looked at; pictures are paths relative to the page.

    Args:
        measured: what the look found.
        plain: picture without labels.
        pictures: by source.
        mosaics: by source.
    """

    measured: Measured
    plain: str | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    mosaics: Mapping[str, str] = field(default_factory=dict)


class Looks:
    """Looks at the cases of a pool for one page.

    Args:
        dataset: planned and preprocessed.
        folder: of the page.
        colours: of the classes.
        pool: who labelled the cases.
    """

    def __init__(self, dataset: SFRDataset, folder: Path, colours: Colours, pool: Pool) -> None:
        self._dataset = dataset
        self._folder = folder / PICTURES
        self._colours = colours
        sam, model = pool.latest(sam=True), pool.latest(sam=False)
        self._compared = (sam.key, model.key) if sam is not None and model is not None else None

    def at(self, subjects: Sequence[Subject], wanted: Wanted, processes: int) -> dict[str, Seen]:
        """Look at every case; pictures and numbers that are there and up to date are taken as they are.

        Raises:
            UserError: a label map does not fit its image, or the disk is full.
        """
        known = self._read_measured()
        looks = {subject.case: self._look(subject, wanted) for subject in subjects}
        digests = {subject.case: self._digest(subject, "measured") for subject in subjects}
        todo = []
        for case, look in looks.items():
            missing = _only_missing(look)
            if missing.plain or missing.pictures or missing.mosaics or known.get(case, {}).get("of") != digests[case]:
                todo.append(missing)
        if todo and not known:
            write_json(known, self._measured_file)  # says that the folder is a report's, should this be stopped
        processes = min(processes, max(1, len(todo) // CASES_FOR_A_PROCESS))
        found = run_parallel(look_at, todo, processes=processes, description="Looking at the cases")
        measured = {case: _from_json(entry) for case, entry in known.items() if case in looks}
        measured |= {look.case: result for look, result in zip(todo, found, strict=True)}
        if todo:
            write_json(
                {case: _to_json(result, digests[case]) for case, result in measured.items()}, self._measured_file
            )
        return {case: self._seen(look, measured[case]) for case, look in looks.items()}

    def remove_others(self, seen: Mapping[str, Seen]) -> None:
        """Remove pictures of earlier pages that this one does not show."""
        shown = {Path(name).name for one in seen.values() for name in _names(one)}
        remove_leftovers(self._folder)
        for file in self._folder.glob(f"*{SUFFIX}"):
            if _PICTURE.fullmatch(file.name) and file.name not in shown:
                file.unlink()

    @property
    def _measured_file(self) -> Path:
        return self._folder / MEASURED

    def _read_measured(self) -> dict[str, dict[str, Any]]:
        try:
            content: dict[str, dict[str, Any]] = json.loads(self._measured_file.read_text())
        except (OSError, ValueError):
            return {}  # it only saves time
        return content

    def _look(self, subject: Subject, wanted: Wanted) -> Look:
        keys = [source.key for source in subject.sources]
        drawn = [key for key in keys if key in wanted.sources] if subject.case in wanted.cases else []
        stitchings = {
            source.key: Stitching.of(source.made_by)
            for source in subject.sources
            if subject.case in wanted.mosaics.get(source.key, ())
        }
        return Look(
            case=subject.case,
            images=self._dataset.paths.unlabelled,
            stores={source.key: source.store for source in subject.sources},
            centre_of=None if subject.centre_of is None else subject.centre_of.key,
            spacing=subject.spacing,
            orientation=subject.orientation,
            colours=self._colours,
            num_classes=self._dataset.num_classes,
            plain=self._file(subject, "image") if subject.case in wanted.cases else None,
            pictures={key: self._file(subject, key) for key in drawn},
            mosaics={
                key: (self._file(subject, key, f"mosaic of {stitching}"), stitching)
                for key, stitching in stitchings.items()
            },
            compared=self._compared if self._compared is not None and set(self._compared) <= set(keys) else None,
        )

    def _file(self, subject: Subject, what: str, kind: str = "") -> Path:
        # a name that needs no quoting in an address; the hash tells apart what this makes the same
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", f"{subject.case}.{what}")
        kind_name = "_mosaic" if kind else ""
        return self._folder / f"{safe}{kind_name}.{self._digest(subject, what, kind)[:_DIGITS]}{SUFFIX}"

    def _digest(self, subject: Subject, what: str, kind: str = "") -> str:
        """Hash of all that a picture (or, for ``measured``, what a look finds) depends on."""
        compared = self._compared if what == "measured" else ()
        labels = [
            source
            for source in subject.sources
            if source is subject.centre_of or source.key in (what, *(compared or ()))
        ]
        image = self._dataset.paths.unlabelled / f"{subject.case}.pkl"
        files = [image, *(source.store.folder / f"{subject.case}.json" for source in labels)]
        style = [DRAWING, drawing.WIDTH, drawing.HEIGHT, drawing.QUALITY, sorted(self._colours.items())]
        parts = [style, subject.case, what, kind, file_stamps(files), [source.key for source in labels]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _seen(self, look: Look, measured: Measured) -> Seen:
        def address(file: Path) -> str:
            return f"{PICTURES}/{file.name}"

        return Seen(
            measured,
            plain=None if look.plain is None else address(look.plain),
            pictures={key: address(file) for key, file in look.pictures.items()},
            mosaics={key: address(file) for key, (file, _) in look.mosaics.items()},
        )


def _only_missing(look: Look) -> Look:
    """The look without the pictures that are there."""
    return replace(
        look,
        plain=None if look.plain is None or look.plain.is_file() else look.plain,
        pictures={key: file for key, file in look.pictures.items() if not file.is_file()},
        mosaics={key: mosaic for key, mosaic in look.mosaics.items() if not mosaic[0].is_file()},
    )


def _names(seen: Seen) -> list[str]:
    return [*([seen.plain] if seen.plain else []), *seen.pictures.values(), *seen.mosaics.values()]


def _to_json(measured: Measured, digest: str) -> dict[str, Any]:
    return {"of": digest, "disagreement": measured.disagreement, "thumbnail": list(measured.thumbnail)}


def _from_json(entry: Mapping[str, Any]) -> Measured:
    return Measured(entry["disagreement"], tuple(entry["thumbnail"]))
