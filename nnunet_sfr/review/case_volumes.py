"""The volumes of the cases under review, read and written with nnU-Net's readers, which take seconds to import.

:mod:`nnunet_sfr.review.session` imports this module when the first case is opened: the list of cases does not wait for
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_sfr.ct_windows import HounsfieldWindow
from nnunet_sfr.data.export import to_original_grid
from nnunet_sfr.data.file_identity import are_recorded
from nnunet_sfr.data.preprocessed_files import PROVENANCE
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import FileHashes
from nnunet_sfr.review.images import image_file
from nnunet_sfr.review.label_maps import largest_upload, pack, read_label_map, unpack, write_label_map
from nnunet_sfr.review.progress import Progress
from nnunet_sfr.review.viewer_grid import ViewerGrid


@dataclass(frozen=True)
class CaseVolumes:
    """The volumes of one case.

    Args:
        dataset: that the case is of.
        raw: its files.
        properties: as nnU-Net's preprocessing recorded them.
        largest_value: of the data set's labels.
    """

    dataset: SFRDataset
    raw: RawCase
    properties: Mapping[str, Any]
    largest_value: int

    @classmethod
    def open(
        cls, dataset: SFRDataset, raw: RawCase, properties: Mapping[str, Any], largest_value: int, hashes: FileHashes
    ) -> CaseVolumes:
        """The volumes of a case whose image is that which was preprocessed.

        Args:
            dataset: that the case is of.
            raw: its files.
            properties: as nnU-Net's preprocessing recorded them.
            largest_value: of the data set's labels.
            hashes: of the raw files, as far as they are known.

        Raises:
            UserError: the image is missing, or was changed.
        """
        recorded = properties.get(PROVENANCE, {}).get("inputs")
        try:
            is_same = recorded is None or are_recorded(recorded, raw.files, hashes)
        except FileNotFoundError:
            raise UserError(
                f"{raw.images[0].parent}: the image of case {raw.identifier} is not there; put it back, or start "
                "sfr_review again if the case was labelled meanwhile"
            ) from None
        if not is_same:
            raise UserError(
                f"{raw.images[0]}: changed since case {raw.identifier} was preprocessed; run sfr_plan_and_preprocess "
                "and sfr_pseudolabel again"
            )
        return cls(dataset, raw, properties, largest_value)

    @property
    def grid(self) -> ViewerGrid:
        return ViewerGrid.of(self.properties, self.dataset.plans["transpose_backward"])

    @property
    def largest_upload(self) -> int:
        """Bytes that a label map of this case can have."""
        return largest_upload(self.grid)

    def image(self, channel: int, window: HounsfieldWindow | None) -> memoryview:
        """A channel as :func:`nnunet_sfr.review.images.image_file` makes it.

        Args:
            channel: from 0.
            window: HU that are black and white; None to choose it by the image.
        """
        return image_file(self.raw, channel, self.grid, self._reader, window)

    def pack(self, labels: np.ndarray) -> bytes:
        """A label map (slices, height, width) of the raw grid for the page."""
        return pack(labels, self.grid)

    def unpack(self, body: bytes) -> np.ndarray:
        """The label map that the page sent, (slices, height, width) uint8 on the raw grid; raises UserError."""
        return unpack(body, self.grid, self.raw.identifier, self.largest_value)

    def packed_from(self, store: PseudoLabelStore) -> bytes:
        """The label map of a store for the page."""
        labels = store.read_labels(self.raw.identifier)
        return self.pack(to_original_grid(labels, dict(self.properties), self.dataset))

    def current(self, progress: Progress) -> np.ndarray:
        """What was drawn last, or else saved, or else nothing; (slices, height, width) on the raw grid.

        Raises:
            UserError: what lies there is of another size, or damaged.
        """
        name = self.raw.identifier
        draft = progress.read_draft(name)
        if draft is not None:
            if draft.shape != self.grid.raw_shape:
                raise UserError(f"case {name}: its draft is of an image of another size; skip the case, or delete it")
            return draft
        file = progress.label_file(name)
        if file.is_file():
            return read_label_map(self._reader, file, self.raw, self.grid, self.largest_value)
        return np.zeros(self.grid.raw_shape, np.uint8)

    def write(self, labels: np.ndarray, progress: Progress) -> None:
        """Write a label map where sfr_add_labels takes it from; see :func:`write_label_map`.

        Args:
            labels: (slices, height, width) on the raw grid.
            progress: knows the file.
        """
        file = progress.label_file(self.raw.identifier)
        write_label_map(labels, file, self.raw, self.properties, self._reader)

    @property
    def _reader(self) -> Any:
        return self.dataset.plans_manager.image_reader_writer_class
