"""The pseudo-label store: label maps and confidence of the unlabelled cases, whoever predicted them.

A store is one folder (:meth:`nnunet_sfr.paths.SFRPaths.pseudo_labels`)::

    manifest.json       what filled it: source, round, fold, the grid it fits, and what made it (hashes, settings)
    <case>.b2nd         label map (1, D, H, W) on the preprocessed grid, -1 outside the image's non-zero mask
    <case>.pkl          where each class lies, for nnU-Net's foreground oversampling
    <case>.json         confidence record; written last, so a case without it is not there

Trainers and SAM know each other through this folder alone, so that any source can fill it.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import MANIFEST


@dataclass(frozen=True)
class PseudoLabelStore:
    """A folder of pseudo-labels; make one with :meth:`create` (to fill) or :meth:`open` (to read)."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def create(cls, folder: Path, *, grid: Mapping[str, Any], made_by: Mapping[str, Any]) -> PseudoLabelStore:
        """Start a store, or go on with one that the same maker began.

        Args:
            folder: of the store.
            grid: :attr:`nnunet_sfr.dataset.SFRDataset.grid`, which fixes grid and values of the label maps.
            made_by: source, hashes and settings; JSON types only.

        Raises:
            UserError: the folder holds pseudo-labels of another maker or grid.
        """
        manifest = json.loads(json.dumps({"grid": dict(grid), "made_by": dict(made_by)}))
        file = folder / MANIFEST
        if file.is_file():
            store = cls(folder, _read_json(file))
            store._require_same(manifest)
            return store
        write_json({**manifest, "nnunet_sfr_version": __version__}, file)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path, *, grid: Mapping[str, Any]) -> PseudoLabelStore:
        """Read a store that is there.

        Raises:
            UserError: there is none, or its label maps lie on another grid than the present plan's.
        """
        file = folder / MANIFEST
        if not file.is_file():
            raise UserError(f"{folder}: there are no pseudo-labels; run sfr_pseudolabel first")
        store = cls(folder, _read_json(file))
        wanted = json.loads(json.dumps(dict(grid)))
        for key, value in wanted.items():
            found = store.manifest.get("grid", {}).get(key)
            if found != value:
                first = "sfr_finetune --overwrite, then " if store.source == "sam" else ""
                raise UserError(
                    f"{folder}: the pseudo-labels were made for {key} {found}, the plan has {value}; "
                    f"run {first}sfr_pseudolabel --overwrite"
                )
        return store

    @property
    def source(self) -> str | None:
        """Who filled it, in one word."""
        source: str | None = self.manifest.get("made_by", {}).get("source")
        return source

    def _require_same(self, manifest: Mapping[str, Any]) -> None:
        for part in ("grid", "made_by"):
            there, wanted = self.manifest.get(part, {}), manifest[part]
            changed = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
            if "source" in changed:
                changed = ["source"]  # of which everything else is a consequence
            if changed:
                raise UserError(
                    f"{self.folder}: holds pseudo-labels made with another {', '.join(changed)}; "
                    "add --overwrite to replace them"
                )

    def identifiers(self) -> list[str]:
        """Cases that are complete."""
        return sorted(file.stem for file in self.folder.glob("*.json") if self._is_case(file))

    def _is_case(self, file: Path) -> bool:
        return file.name != MANIFEST and not file.name.startswith(".")

    def has(self, identifier: str) -> bool:
        return (self.folder / f"{identifier}.json").is_file()

    def write(
        self,
        identifier: str,
        labels: np.ndarray,
        confidence: Mapping[str, Any],
        *,
        label_manager: LabelManager,
        patch_size: Iterable[int],
    ) -> None:
        """Store one case; it counts as there only when everything is written.

        Args:
            identifier: of the case.
            labels: (1, D, H, W) integers, -1 outside the non-zero mask.
            confidence: the record, JSON types.
            label_manager: which classes or regions nnU-Net oversamples.
            patch_size: of nnU-Net's network, which the compression blocks follow.
        """
        (self.folder / f"{identifier}.json").unlink(missing_ok=True)  # an older record must not speak for new labels
        labels = np.ascontiguousarray(labels, dtype=np.int8 if labels.max() < 128 else np.int16)
        block, chunk = comp_blosc2_params(labels.shape, tuple(patch_size), bytes_per_pixel=labels.itemsize)
        with replacing(self.folder / f"{identifier}.b2nd") as temporary:
            nnUNetDatasetBlosc2.save_seg(labels, str(temporary.with_suffix("")), chunks_seg=chunk, blocks_seg=block)
        with replacing(self.folder / f"{identifier}.pkl") as temporary:
            temporary.write_bytes(pickle.dumps({"class_locations": class_locations(labels, label_manager)}))
        write_json(dict(confidence), self.folder / f"{identifier}.json")

    def read_labels(self, identifier: str) -> np.ndarray:
        """Label map (1, D, H, W) of one case."""
        labels: np.ndarray = open_b2nd(self.folder / f"{identifier}.b2nd")[:]
        return labels

    def read_confidence(self, identifier: str) -> dict[str, Any]:
        return _read_json(self.folder / f"{identifier}.json")


def open_b2nd(file: Path) -> Any:
    """A blosc2 array, opened as nnU-Net opens its own: memory-mapped (not on Windows) and on one thread.

    Raises:
        UserError: the file is missing or damaged.
    """
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
    wanted = list(label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels)
    if label_manager.has_ignore_label:
        wanted.append([-1, *label_manager.all_labels])
    locations: dict[Any, Any] = DefaultPreprocessor._sample_foreground_locations(labels, wanted)
    return locations


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); delete it and run sfr_pseudolabel again") from None
    return content
