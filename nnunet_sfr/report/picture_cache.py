"""Which pictures the report needs, and the drawing of those that are not there from an earlier run.

A picture's name holds a hash of what it is made from (image, label maps, colours, geometry), so one that is there is
the right one, and an older page keeps its own until the new page is complete. What was measured of the cases is kept
beside them in one file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_sfr.atomic import remove_leftovers, write_json
from nnunet_sfr.data.file_identity import file_stamps
from nnunet_sfr.data.parallel import run_parallel
from nnunet_sfr.data.store_files import record_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.report import pictures as drawing
from nnunet_sfr.report.case_drawing import DrawingTask, Measurements, MosaicFiles, draw_and_measure
from nnunet_sfr.report.contents import MosaicPictures
from nnunet_sfr.report.label_sources import LabelSource, Pool
from nnunet_sfr.report.mosaics import geometry_of_labels
from nnunet_sfr.report.orientation import Orientation
from nnunet_sfr.report.pictures import SUFFIX, Colours
from nnunet_sfr.report.windows import GreyWindow
from nnunet_sfr.sam_stage.stitching import StitchGeometry

PICTURES = "pictures"
MEASURED = "measured.json"
"""In the folder of pictures: what was measured of each case, and the hash of what it was measured on."""
DRAWING = 3
"""To be raised when pictures or numbers of earlier versions are to be made again."""
CASES_FOR_A_PROCESS = 32
"""A process spends as long on its imports as on so many small cases."""
_DIGITS = 12
_PICTURE = re.compile(rf".+\.[0-9a-f]{{{_DIGITS}}}{re.escape(SUFFIX)}")


@dataclass(frozen=True)
class CaseToDraw:
    """One case before it is drawn.

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
class PictureRequest:
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
class CasePictures:
    """The pictures of a case, as paths relative to the page, and its measurements.

    Args:
        measurements: of the volumes.
        images: the planes in grey, by window.
        labels: to lay over them, by source.
        mosaics: by source.
    """

    measurements: Measurements
    images: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mosaics: Mapping[str, MosaicPictures] = field(default_factory=dict)


class PictureCache:
    """The pictures of a pool's cases below the folder of one page.

    Args:
        dataset: planned and preprocessed.
        folder: of the page.
        colours: of the classes.
        windows: of the grey images; mosaics are drawn in the first.
        pool: who labelled the cases.
    """

    def __init__(
        self, dataset: SFRDataset, folder: Path, colours: Colours, windows: Sequence[GreyWindow], pool: Pool
    ) -> None:
        self._dataset = dataset
        self._folder = folder / PICTURES
        self._colours = colours
        self._windows = tuple(windows)
        sam, model = pool.latest(sam=True), pool.latest(sam=False)
        self._compared = (sam.key, model.key) if sam is not None and model is not None else None

    def draw(self, cases: Sequence[CaseToDraw], request: PictureRequest, processes: int) -> dict[str, CasePictures]:
        """Draw and measure every case; pictures and numbers that are there and up to date are taken as they are.

        Args:
            cases: all of the pool.
            request: what to draw of them.
            processes: that draw, at most.

        Returns:
            what there is of each case.

        Raises:
            UserError: a label map does not fit its image, or the disk is full.
        """
        known = self._read_measured()
        tasks = {case.case: self._task(case, request) for case in cases}
        digests = {case.case: self._digest(case, "measured") for case in cases}
        todo = []
        for name, task in tasks.items():
            missing = _only_missing(task)
            is_drawn = not (missing.image_files or missing.label_files or missing.mosaics)
            if not is_drawn or known.get(name, {}).get("of") != digests[name]:
                todo.append(missing)
        if todo and not known:
            write_json(known, self._measured_file)  # says that the folder is a report's, should this be stopped
        processes = min(processes, max(1, len(todo) // CASES_FOR_A_PROCESS))
        found = run_parallel(draw_and_measure, todo, processes=processes, description="Drawing the cases")
        measured = {case: _from_json(entry) for case, entry in known.items() if case in tasks}
        measured |= {task.case: result for task, result in zip(todo, found, strict=True)}
        if todo:
            write_json(
                {case: _to_json(result, digests[case]) for case, result in measured.items()}, self._measured_file
            )
        return {case: _pictures_of(task, measured[case]) for case, task in tasks.items()}

    def remove_others(self, shown: Iterable[str]) -> None:
        """Remove pictures of earlier pages.

        Args:
            shown: pictures of this page, relative to it.
        """
        names = {Path(name).name for name in shown}
        remove_leftovers(self._folder)
        for file in self._folder.glob(f"*{SUFFIX}"):
            if _PICTURE.fullmatch(file.name) and file.name not in names:
                file.unlink()

    @property
    def _measured_file(self) -> Path:
        return self._folder / MEASURED

    def _read_measured(self) -> dict[str, dict[str, Any]]:
        try:
            content: dict[str, dict[str, Any]] = json.loads(self._measured_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # it only saves time
        return content

    def _task(self, case: CaseToDraw, request: PictureRequest) -> DrawingTask:
        keys = [source.key for source in case.sources]
        is_drawn = case.case in request.cases
        return DrawingTask(
            case=case.case,
            images=self._dataset.paths.unlabelled,
            stores={source.key: source.store for source in case.sources},
            centre_of=None if case.centre_of is None else case.centre_of.key,
            spacing=case.spacing,
            orientation=case.orientation,
            colours=self._colours,
            num_classes=self._dataset.num_classes,
            windows=self._windows,
            image_files={
                window.key: self._file(case, "image", repr(window), window.key) for window in self._windows if is_drawn
            },
            label_files={key: self._file(case, key) for key in keys if is_drawn and key in request.sources},
            mosaics={
                source.key: self._mosaic_files(case, source.key, geometry_of_labels(source.made_by))
                for source in case.sources
                if case.case in request.mosaics.get(source.key, ())
            },
            compared=self._compared if self._compared is not None and set(self._compared) <= set(keys) else None,
        )

    def _mosaic_files(self, case: CaseToDraw, key: str, geometry: StitchGeometry) -> MosaicFiles:
        kind = f"mosaic of {geometry}, {self._windows[0]}"
        return MosaicFiles(
            self._file(case, key, kind, "mosaic"), self._file(case, key, kind, "mosaic_labels"), geometry
        )

    def _file(self, case: CaseToDraw, what: str, kind: str = "", ending: str = "") -> Path:
        return self._folder / picture_name((case.case, what, ending), self._digest(case, what, kind))

    def _digest(self, case: CaseToDraw, what: str, kind: str = "") -> str:
        """Hash of all that a picture (or, for ``measured``, the measurements) depends on."""
        compared = self._compared if what == "measured" else ()
        labels = [
            source for source in case.sources if source is case.centre_of or source.key in (what, *(compared or ()))
        ]
        image = self._dataset.paths.unlabelled / f"{case.case}.pkl"
        files = [image, *(record_file(source.store.folder, case.case) for source in labels)]
        return digest_of(self._colours, case.case, what, kind, file_stamps(files), [source.key for source in labels])


def picture_name(words: Sequence[str], digest: str) -> str:
    """File name of a picture.

    Args:
        words: case, and what is drawn of it; empty ones are left out.
        digest: of everything that the picture depends on.
    """
    # a name that needs no quoting in an address; the hash tells apart what this makes the same
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", ".".join(word for word in words if word))
    return f"{safe}.{digest[:_DIGITS]}{SUFFIX}"


def digest_of(colours: Colours, *parts: Any) -> str:
    """Hash of what a picture depends on, the way of drawing included.

    Args:
        colours: of the classes.
        parts: in JSON's types.
    """
    style = [DRAWING, drawing.WIDTH, drawing.HEIGHT, drawing.QUALITY, sorted(colours.items())]
    return hashlib.sha256(json.dumps([style, *parts]).encode()).hexdigest()


def address(file: Path) -> str:
    """Of a picture, relative to the page."""
    return f"{PICTURES}/{file.name}"


def _pictures_of(task: DrawingTask, measurements: Measurements) -> CasePictures:
    return CasePictures(
        measurements,
        images={key: address(file) for key, file in task.image_files.items()},
        labels={key: address(file) for key, file in task.label_files.items()},
        mosaics={
            key: MosaicPictures(address(files.image), address(files.labels)) for key, files in task.mosaics.items()
        },
    )


def _only_missing(task: DrawingTask) -> DrawingTask:
    """The task without the pictures that are there."""
    return replace(
        task,
        image_files={key: file for key, file in task.image_files.items() if not file.is_file()},
        label_files={key: file for key, file in task.label_files.items() if not file.is_file()},
        mosaics={
            key: files for key, files in task.mosaics.items() if not (files.image.is_file() and files.labels.is_file())
        },
    )


def _to_json(measurements: Measurements, digest: str) -> dict[str, Any]:
    return {"of": digest, **asdict(measurements)}


def _from_json(entry: Mapping[str, Any]) -> Measurements:
    return Measurements(entry["disagreement"], tuple(entry["thumbnail"]))
