"""A data set under review: what the page asks for, and what it decides."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_sfr.ct_windows import CT_SCHEME, CT_WINDOWS, HounsfieldWindow, choose_window
from nnunet_sfr.data.dataset_json import channel_names
from nnunet_sfr.data.file_identity import raw_file_hashes
from nnunet_sfr.data.raw_cases import list_unlabelled
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import Fold
from nnunet_sfr.report.label_sources import RETRAINED_MODEL, LabelSource
from nnunet_sfr.review.classes import ReviewClass, review_classes
from nnunet_sfr.review.listing import Listing, list_for_review
from nnunet_sfr.review.progress import ACCEPTED, CORRECTED, OPEN, SKIPPED, Progress
from nnunet_sfr.review.recent import Recent

if TYPE_CHECKING:
    from nnunet_sfr.review.case_volumes import CaseVolumes

_IMAGES_KEPT, _LABELS_KEPT = 2, 8
"""The image that is shown and the next one; label maps are small when compressed."""
CURRENT = "current"
"""In the place of a source: what was drawn or saved last."""


def _short(source: LabelSource) -> str:
    """For a button."""
    if source.made_by.is_sam:
        return "SAM"
    return "Network" if source.kind == RETRAINED_MODEL else source.made_by.label


@contextlib.contextmanager
def _told_which_folder(progress: Progress) -> Iterator[None]:
    """A folder that cannot be written to becomes one line."""
    try:
        yield
    except OSError as error:
        folder = progress.corrected.parent
        raise UserError(f"{folder}: cannot be written to ({error}); ask its owner for the permission") from None


class Session:
    """The cases of a data set, from its stores to its label maps.

    Args:
        dataset: planned, preprocessed, and with pseudo-labels.
        fold: whose labels.
        executor: reads volumes.

    Raises:
        UserError: there is nothing to review, or the raw images are missing.
    """

    def __init__(self, dataset: SFRDataset, fold: Fold, executor: Executor) -> None:
        self._dataset = dataset
        self._fold = fold
        self._executor = executor
        # one at a time: who reads a label map keeps the reader's remarks from the terminal, for the whole process
        self._label_files = threading.Lock()
        self.progress = Progress(dataset.paths.review, dataset.dataset_json["file_ending"])
        self._classes: Sequence[ReviewClass] = review_classes(dataset)
        self._schemes: Sequence[str] = dataset.configuration["normalization_schemes"]
        self.reload()

    def reload(self) -> None:
        """List the cases again, after some became labelled ones."""
        listing = list_for_review(self._dataset, self._fold)
        raw = {case.identifier: case for case in list_unlabelled(self._dataset.paths.raw, self._dataset.dataset_json)}
        missing = [case.name for case in listing.cases if case.name not in raw]
        if missing:
            raise UserError(
                f"{self._dataset.paths.raw_unlabelled}: the image of case {missing[0]} is missing; put it back, or run "
                "sfr_plan_and_preprocess"
            )
        self._listing: Listing = listing
        self._raw = raw
        self._hashes = raw_file_hashes(self.dataset_name)
        self._by_name = {case.name: case for case in listing.cases}
        self._sources: Mapping[str, LabelSource] = {source.key: source for source in listing.sources}
        self._images: Recent[memoryview] = Recent(_IMAGES_KEPT, self._executor)
        self._labels: Recent[bytes] = Recent(_LABELS_KEPT, self._executor)

    @property
    def dataset_name(self) -> str:
        return self._dataset.paths.dataset_name

    @property
    def num_channels(self) -> int:
        return len(self._channels)

    @property
    def decided(self) -> list[str]:
        """Cases whose label maps are ready for sfr_add_labels."""
        return [name for name in self._by_name if self.progress.case_state(name).state in (CORRECTED, ACCEPTED)]

    def next_open(self) -> str | None:
        """The first case without a decision."""
        return next((name for name in self._by_name if self.progress.case_state(name).state == OPEN), None)

    @property
    def problems(self) -> Sequence[str]:
        """What of the stores cannot be shown."""
        return self._listing.problems

    def to_json(self) -> dict[str, Any]:
        """Everything but the volumes, JSON types."""
        return {
            "dataset": self.dataset_name,
            "channels": [{"name": name, "is_ct": self._is_ct(channel)} for channel, name in enumerate(self._channels)],
            "windows": [{"name": name, "low": low, "high": high} for name, (low, high) in self._ct_windows()],
            "classes": [asdict(one) for one in self._classes],
            "sources": [
                {"key": source.key, "name": source.name, "short": _short(source)} for source in self._listing.sources
            ],
            "cases": [{**asdict(case), **asdict(self.progress.case_state(case.name))} for case in self._listing.cases],
            "folder": str(self.progress.corrected),
        }

    def case_state(self, name: str) -> dict[str, Any]:
        """How a case stands now, JSON types."""
        return asdict(self.progress.case_state(name))

    def has(self, name: str) -> bool:
        return name in self._by_name

    def case_to_json(self, name: str) -> dict[str, Any]:
        """Size of a case, and which label map it opens with; JSON types.

        Raises:
            UserError: its image was changed since it was preprocessed, or a saved label map was deleted.
        """
        grid = self._open(name).grid
        state = self.progress.case_state(name)
        note = ""
        if state.is_deleted:
            note = (
                f"{self.progress.label_file(name)}: the label map that was saved of case {name} has been deleted; the "
                "case is open again"
            )
        depth, height, width = grid.shape
        return {
            **asdict(state),
            "shape": [width, height, depth],
            "spacing": list(reversed(grid.spacing)),
            "start": CURRENT if self._has_current(name) else self._first_source(name),
            "note": note,
        }

    def image(self, name: str, channel: int) -> memoryview:
        """A channel of its image as NIfTI in the viewer's axes.

        Args:
            name: of the case.
            channel: from 0.

        Raises:
            UserError: the image cannot be read.
        """
        volumes = self._open(name)
        return self._images.get((name, channel), lambda: volumes.image(channel, self._first_window(channel)))

    def labels(self, name: str, source: str) -> bytes:
        """A label map, packed for the page.

        Args:
            name: of the case.
            source: key of a source, or ``current`` for what was drawn or saved last.

        Raises:
            UserError: there is no such label map, or it is damaged.
        """
        volumes = self._open(name)
        if source == CURRENT:
            with self._label_files:
                return volumes.pack(volumes.current(self.progress))
        if source not in self._by_name[name].sources:
            raise UserError(f"case {name} has no labels of {source}; run sfr_pseudolabel, or draw them")
        return self._labels.get((name, source), lambda: volumes.packed_from(self._sources[source].store))

    def prepare(self, name: str) -> None:
        """Read a case that will be asked for next."""
        volumes, first = self._open(name), self._first_source(name)
        self._images.prepare((name, 0), lambda: volumes.image(0, self._first_window(0)))
        if first:
            self._labels.prepare((name, first), lambda: volumes.packed_from(self._sources[first].store))

    def largest_upload(self, name: str) -> int:
        """Bytes that a label map of this case can have."""
        return self._open(name).largest_upload

    def save_draft(self, name: str, body: bytes) -> None:
        """Keep what was drawn, as long as it is not saved.

        Args:
            name: of the case.
            body: of the request: the label map, packed as :func:`nnunet_sfr.review.label_maps.unpack` takes it.

        Raises:
            UserError: it is no label map of this case, or cannot be written.
        """
        labels = self._open(name).unpack(body)
        with self._label_files, _told_which_folder(self.progress):
            self.progress.write_draft(name, labels)

    def save(self, name: str, body: bytes) -> None:
        """Write a corrected label map where sfr_add_labels takes it from.

        Args:
            name: of the case.
            body: of the request: the label map, packed as :func:`nnunet_sfr.review.label_maps.unpack` takes it.

        Raises:
            UserError: it is no label map of this case, or cannot be written; an older one stays.
        """
        volumes, source = self._open(name), self._first_source(name)
        labels = volumes.unpack(body)
        before = volumes.unpack(self.labels(name, source)) if source else np.zeros_like(labels)
        self._write(volumes, labels, CORRECTED, source, int(np.count_nonzero(labels != before)))

    def accept(self, name: str, source: str) -> None:
        """Take the labels of a source as they are.

        Args:
            name: of the case.
            source: of the labels, by its name on the page.

        Raises:
            UserError: there are none, or they cannot be written.
        """
        volumes = self._open(name)
        if source not in self._by_name[name].sources:
            raise UserError(f"case {name} has no pseudo-label to accept; draw its labels and save them, or skip it")
        self._write(volumes, volumes.unpack(self.labels(name, source)), ACCEPTED, source, 0)

    def skip(self, name: str) -> None:
        """Leave a case; what was drawn is kept as a draft, and a label map that was saved is taken back."""
        volumes = self._open(name)
        with self._label_files, _told_which_folder(self.progress):
            if self.progress.label_file(name).is_file():
                if not self.progress.case_state(name).has_draft:
                    self.progress.write_draft(name, volumes.current(self.progress))
                self.progress.remove_label(name)
            self.progress.decide(name, SKIPPED)

    def _write(self, volumes: CaseVolumes, labels: np.ndarray, state: str, source: str, changed: int) -> None:
        name = volumes.raw.identifier
        with self._label_files, _told_which_folder(self.progress):
            volumes.write(labels, self.progress)
            self.progress.decide(name, state, source, changed)
            self.progress.remove_draft(name)

    def _open(self, name: str) -> CaseVolumes:
        """Raises UserError for a case whose image is not that which was preprocessed."""
        from nnunet_sfr.review.case_volumes import CaseVolumes

        largest = max(one.value for one in self._classes)
        return CaseVolumes.open(self._dataset, self._raw[name], self._listing.properties[name], largest, self._hashes)

    def _first_source(self, name: str) -> str:
        """Key of the labels that a case starts from; nothing without any."""
        return next(iter(self._by_name[name].sources), "")

    def _has_current(self, name: str) -> bool:
        return self.progress.case_state(name).has_draft or self.progress.label_file(name).is_file()

    @property
    def _channels(self) -> list[str]:
        return channel_names(self._dataset.dataset_json)

    def _is_ct(self, channel: int) -> bool:
        return bool(self._schemes[channel] == CT_SCHEME)

    def _ct_windows(self) -> list[tuple[str, HounsfieldWindow]]:
        """Names and Hounsfield units, the one that fits the labelled foreground first."""
        first = choose_window(self._dataset.foreground_intensities, self._schemes)
        return sorted(CT_WINDOWS.items(), key=lambda window: window[0] != first)

    def _first_window(self, channel: int) -> HounsfieldWindow | None:
        """What a channel is shown in at first; None for percentiles of the image."""
        return self._ct_windows()[0][1] if self._is_ct(channel) else None
