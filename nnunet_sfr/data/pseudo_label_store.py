"""The pseudo-label store: label maps and confidence of the unlabelled cases, whoever predicted them.

A store is one folder (:meth:`nnunet_sfr.paths.SFRPaths.pseudo_labels`)::

    manifest.json       what filled it (:class:`nnunet_sfr.data.provenance.Provenance`), and the grid it fits
    <case>.b2nd         label map (1, D, H, W) on the preprocessed grid, -1 outside the image's non-zero mask
    <case>.pkl          where each class lies, for nnU-Net's foreground oversampling
    <case>.json         confidence record, and the hash of what made the labels; written last, so a case without it is
                        not there (:mod:`nnunet_sfr.data.store_files` has the names)
    voxel_confidence/   optional: how probable each voxel's label is (:mod:`nnunet_sfr.data.voxel_confidence`)

Trainers and SAM know each other through this folder alone, so that any source can fill it. Who reads records alone does
not wait for the imports of nnU-Net and blosc2, which take seconds.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.label_grid import first_difference
from nnunet_sfr.data.provenance import PROVENANCE_SHAPE, Provenance
from nnunet_sfr.data.store_files import case_files, cases_with_record, labels_file, locations_file, record_file
from nnunet_sfr.data.voxel_confidence import write_voxel_confidence
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import OBJECT, read_json
from nnunet_sfr.paths import MANIFEST
from nnunet_sfr.pickle_files import read_pickle

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

FORMAT = 2
"""Of the manifest. Since format 2 every record names what made its labels; format 1 has no number."""

_MADE_BY = "made_by"

_MANIFEST_SHAPE = {"grid": OBJECT, _MADE_BY: PROVENANCE_SHAPE, "format?": int, "nnunet_sfr_version?": str}

RECORD_SHAPE = {"class_voxels?": {...: int}, "input?": str, _MADE_BY + "?": str}
"""Of a case's record, as far as its entries mean the same whatever made the labels."""

_REMEDY = "run the sfr_pseudolabel that fills this store again, with --overwrite"


@dataclass(frozen=True)
class PseudoLabelStore:
    """A folder of pseudo-labels; make one with :meth:`create` (to fill) or :meth:`open` (to read)."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def create(cls, folder: Path, *, grid: Mapping[str, Any], made_by: Provenance) -> PseudoLabelStore:
        """Start a store, or continue one that the same maker began.

        Cases that lie in the folder without a manifest count only if their records name this maker.

        Args:
            folder: of the store.
            grid: :attr:`nnunet_sfr.dataset.SFRDataset.grid`, which fixes grid and values of the label maps.
            made_by: what makes the labels.

        Raises:
            UserError: the folder holds pseudo-labels of another maker or grid.
        """
        wanted = json.loads(json.dumps(dict(grid)))
        if cls.exists(folder):
            store = cls._read(folder)
            store._require_same(wanted, made_by)
            return store
        manifest = {"format": FORMAT, "grid": wanted, _MADE_BY: made_by.to_json(), "nnunet_sfr_version": __version__}
        write_json(manifest, folder / MANIFEST)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path, *, grid: Mapping[str, Any]) -> PseudoLabelStore:
        """Read a store that is there.

        Args:
            folder: of the store.
            grid: :attr:`nnunet_sfr.dataset.SFRDataset.grid` of today.

        Raises:
            UserError: there is none, or its label maps lie on another grid than the present plan's.
        """
        if not cls.exists(folder):
            raise UserError(f"{folder}: there are no pseudo-labels; run sfr_pseudolabel first")
        store = cls._read(folder)
        key = first_difference(store.grid, grid)
        if key is not None:
            raise UserError(
                f"{folder}: the pseudo-labels were made for {key} {store.grid.get(key)}, the plan has "
                f"{json.loads(json.dumps(grid[key]))}; run {store.made_by.refill}"
            )
        return store

    @classmethod
    def open_if_there(cls, folder: Path, *, grid: Mapping[str, Any]) -> PseudoLabelStore | None:
        """:meth:`open`, or None where there is no store in this folder.

        Args:
            folder: of the store.
            grid: that the labels must have.
        """
        return cls.open(folder, grid=grid) if cls.exists(folder) else None

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a store has been started in this folder."""
        return (folder / MANIFEST).is_file()

    @classmethod
    def _read(cls, folder: Path) -> PseudoLabelStore:
        return cls(folder, read_json(folder / MANIFEST, _REMEDY, _MANIFEST_SHAPE))

    @cached_property
    def made_by(self) -> Provenance:
        """What made the labels."""
        return Provenance.from_json(self.manifest[_MADE_BY])

    @property
    def grid(self) -> Mapping[str, Any]:
        """What the label maps fit, as :attr:`nnunet_sfr.dataset.SFRDataset.grid` was when the store was started."""
        grid: Mapping[str, Any] = self.manifest.get("grid", {})
        return grid

    @property
    def version(self) -> str | None:
        """Of nnunet_sfr, which started the store."""
        version: str | None = self.manifest.get("nnunet_sfr_version")
        return version

    def _require_same(self, grid: Mapping[str, Any], made_by: Provenance) -> None:
        changed = sorted(key for key in {*grid, *self.grid} if self.grid.get(key) != grid.get(key))
        changed = changed or self.made_by.differences(made_by)
        if changed:
            raise UserError(
                f"{self.folder}: holds pseudo-labels made with another {', '.join(changed)}; "
                "add --overwrite to replace them"
            )

    def identifiers(self) -> list[str]:
        """Cases that are complete."""
        return [case for case in cases_with_record(self.folder) if self.has(case)]

    def has(self, identifier: str) -> bool:
        """Whether a case is complete."""
        return self.find_record(identifier) is not None

    def find_record(self, identifier: str) -> dict[str, Any] | None:
        """The record of a case that is complete: all its files are there, and what made them made the store's labels.

        Raises:
            UserError: the record is damaged.
        """
        if not all(file.is_file() for file in case_files(self.folder, identifier)):
            return None
        record = self.read_confidence(identifier)
        # before format 2 records did not say it; beside a newer manifest it cannot be known
        unsaid = self.made_by.fingerprint if self.manifest.get("format", 1) < FORMAT else None
        return record if record.get(_MADE_BY, unsaid) == self.made_by.fingerprint else None

    def write(
        self,
        identifier: str,
        labels: np.ndarray,
        confidence: Mapping[str, Any],
        *,
        label_manager: LabelManager,
        patch_size: Iterable[int],
        voxel_confidence: np.ndarray | None = None,
    ) -> None:
        """Store one case; it counts as there only when everything is written.

        Args:
            identifier: of the case.
            labels: (1, D, H, W) integers, -1 outside the non-zero mask.
            confidence: the record, JSON types; what made the labels is added.
            label_manager: which classes or regions nnU-Net oversamples.
            patch_size: of nnU-Net's network, which the compression blocks follow.
            voxel_confidence: (D, H, W), the probability of each voxel's label; None where unknown.
        """
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

        record, labels_at, locations = case_files(self.folder, identifier)
        record.unlink(missing_ok=True)  # an older record must not speak for new labels
        labels = np.ascontiguousarray(labels, dtype=np.int8 if labels.max() < 128 else np.int16)
        block, chunk = comp_blosc2_params(labels.shape, tuple(patch_size), bytes_per_pixel=labels.itemsize)
        with replacing(labels_at) as temporary:
            nnUNetDatasetBlosc2.save_seg(labels, str(temporary.with_suffix("")), chunks_seg=chunk, blocks_seg=block)
        with replacing(locations) as temporary:
            temporary.write_bytes(pickle.dumps({"class_locations": class_locations(labels, label_manager)}))
        write_voxel_confidence(self.folder, identifier, voxel_confidence, patch_size=patch_size)
        write_json({**confidence, _MADE_BY: self.made_by.fingerprint}, record)

    def open_labels(self, identifier: str) -> Any:
        """Label map (1, D, H, W) of one case, as a blosc2 array that reads what is asked for."""
        return open_b2nd(labels_file(self.folder, identifier))

    def read_labels(self, identifier: str) -> np.ndarray:
        """Label map (1, D, H, W) of one case."""
        labels: np.ndarray = self.open_labels(identifier)[:]
        return labels

    def read_locations(self, identifier: str) -> dict[str, Any]:
        """``class_locations`` of one case, as nnU-Net's loader reads them from the properties of a labelled case."""
        return read_pickle(locations_file(self.folder, identifier), _REMEDY, ("class_locations",))

    def read_confidence(self, identifier: str) -> dict[str, Any]:
        """The record of one case (:func:`nnunet_sfr.confidence.confidence_record`, and what it was made from)."""
        return read_json(record_file(self.folder, identifier), _REMEDY, RECORD_SHAPE)


def open_b2nd(file: Path) -> Any:
    """A blosc2 array, opened as nnU-Net opens its own: memory-mapped (not on Windows) and on one thread.

    Raises:
        UserError: the file is missing or damaged.
    """
    import blosc2

    memory_map = {} if os.name == "nt" else {"mmap_mode": "r"}
    try:
        return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **memory_map)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "missing" if not file.exists() else f"damaged ({error})"
        raise UserError(
            f"{file}: {reason}; run sfr_plan_and_preprocess for images, sfr_pseudolabel --overwrite for pseudo-labels"
        ) from None


def class_locations(labels: np.ndarray, label_manager: LabelManager) -> dict[Any, Any]:
    """Voxels of every class or region, as nnU-Net's preprocessing records them for foreground oversampling.

    Args:
        labels: (1, D, H, W).
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    wanted = list(label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels)
    if label_manager.has_ignore_label:
        wanted.append([-1, *label_manager.all_labels])
    locations: dict[Any, Any] = DefaultPreprocessor._sample_foreground_locations(labels, wanted)
    return locations
