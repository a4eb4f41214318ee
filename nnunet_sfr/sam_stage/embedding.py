"""Embed augmented views of labelled cases with a frozen encoder, as far as they are not on disk yet."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_sfr.data.datasets import LoadableCases
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.random_state import random_state, restore_random_state, seed_everything
from nnunet_sfr.sam_stage.intensities import intensities_of
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX, labelled_canvas
from nnunet_sfr.sam_stage.patches import OVERSAMPLE_FOREGROUND, labelled_patches
from nnunet_sfr.sam_stage.stitching import StitchGeometry
from nnunet_sfr.sam_stage.views import ViewStore
from nnunet_sfr.settings import FineTuningSettings

_NO_VOXEL = np.iinfo(np.int16).min
"""In the label map of a patch, where it reaches beyond the image."""


class ViewMaker:
    """Makes the views of labelled cases.

    The views of a case are drawn with seeds of their own, so that they do not depend on which of them were made before
    an interruption, on other cases, or on which process makes them.

    Args:
        dataset: planned.
        cases: labelled, with the model's intensities (:class:`nnunet_sfr.sam_stage.intensities.CasesWithIntensities`).
        settings: of fine-tuning; the seed is that of round 0, so that rounds share views.
        encoder: from images [1, in_channels, S, S] to embeddings [1, dim, h, w], without gradients.
        geometry: how patches are stitched; other geometries have makers and folders of their own.
        device: to embed on.
        weights: identifies the encoder.
        folder_of: where in the store the views of each case lie.
        sampling_probabilities: of each case, in the order of ``cases.identifiers``; None for equal ones.
        draws: views that fine-tuning draws in all; a case gets no more augmented ones than it is drawn.
    """

    def __init__(
        self,
        dataset: SFRDataset,
        cases: LoadableCases,
        settings: FineTuningSettings,
        encoder: nn.Module,
        geometry: StitchGeometry,
        device: torch.device,
        *,
        weights: str,
        folder_of: Mapping[str, str],
        sampling_probabilities: Sequence[float] | None,
        draws: float,
    ) -> None:
        self._dataset = dataset
        self._cases = cases
        self._settings = settings
        self._encoder = encoder
        self._geometry = geometry
        self._device = device
        self._weights = weights
        self._folder_of = folder_of
        self._intensities = intensities_of(dataset)
        self._expected_draws = expected_draws(cases.identifiers, sampling_probabilities, draws)
        self.store = ViewStore(dataset.paths.sam_views)

    def count(self, identifier: str) -> int:
        """Number of views of a case."""
        return number_of_views(len(self._patches(identifier)), self._settings.views, self._expected_draws[identifier])

    def _patches(self, identifier: str) -> list[tuple[int, ...]]:
        """First voxels (D, H, W) of the patches that are a case's first views, without augmentation."""
        image, _, _, _ = self._cases.load_case(identifier)
        return spread_patches(image.shape[1:], self._geometry.patch_size)

    def prepare(self) -> None:
        """Delete views that were made by another recipe, and say what has changed."""
        for identifier in self._cases.identifiers:
            changed = self.store.prepare(self._folder_of[identifier], self._recipe(identifier))
            if changed:
                tqdm.write(f"{identifier}: embedded again, because of another {', '.join(changed)}")

    def make(self, *, part: int = 0, parts: int = 1) -> dict[str, int]:
        """Embed what is missing.

        Args:
            part: which share of the views this process makes, from 0.
            parts: number of processes.

        Returns:
            Number of views in every folder of the store.

        Raises:
            UserError: the disk is full.
        """
        counts = {identifier: self.count(identifier) for identifier in self._cases.identifiers}
        # shared out by their place among all views: what is missing changes while other processes work
        views = [(identifier, index) for identifier, count in counts.items() for index in range(count)][part::parts]
        missing = {case: set(self.store.missing(self._folder_of[case], count)) for case, count in counts.items()}
        todo = [(identifier, index) for identifier, index in views if index in missing[identifier]]
        in_folders = {self._folder_of[identifier]: count for identifier, count in counts.items()}
        if not todo:
            return in_folders
        before = random_state()
        with torch.inference_mode():
            for identifier, index in tqdm(todo, desc="Embedding labelled views", mininterval=1, disable=part > 0):
                canvas, target = self._view(identifier, index)
                embedding = self._encoder(canvas.to(self._device))
                self.store.write(self._folder_of[identifier], index, embedding[0], target[0])
        restore_random_state(before)
        return in_folders

    def unaugmented(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Those views of all cases that are the patches themselves, once they are made."""
        for identifier in self._cases.identifiers:
            for index in range(len(self._patches(identifier))):
                yield self.store.read(self._folder_of[identifier], index)

    def embed_unaugmented(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What :meth:`unaugmented` reads, embedded here and stored nowhere: for an encoder that is trained."""
        for identifier in self._cases.identifiers:
            for index in range(len(self._patches(identifier))):
                with torch.inference_mode():
                    canvas, target = self._view(identifier, index)
                    embedding = self._encoder(canvas.to(self._device))
                yield embedding[0].cpu(), target[0]

    def _view(self, identifier: str, index: int) -> tuple[Tensor, Tensor]:
        """Image [1, channels, S, S] and target [1, S, S]; the first views are the patches without augmentation."""
        image, labels, _, _ = self._cases.load_case(identifier)
        corners = self._patches(identifier)
        if index < len(corners):
            box = [[start, start + size] for start, size in zip(corners[index], self._geometry.patch_size, strict=True)]
            data = torch.from_numpy(crop_and_pad_nd(image, box, 0))[None]
            cropped = crop_and_pad_nd(labels, box, _NO_VOXEL, cast_cropped_to=np.int16)
            # outside the non-zero mask is background, as after nnU-Net's augmentation; outside the image is nothing
            known = np.where(cropped == _NO_VOXEL, IGNORE_INDEX, np.maximum(cropped, 0))
            target = torch.from_numpy(known)[None]
        else:
            seed_everything(view_seed(self._settings.seed, identifier, self._geometry.slice_axis, index))
            only = _OneCase(self._cases, identifier)
            share = foreground_share(len(corners))
            batches = labelled_patches(
                self._dataset,
                only,
                batch_size=1,
                oversample_foreground=share,
                # a case that fits into a patch is shown whole
                anywhere=share == 0,
                processes=0,
                pin_memory=False,
            )
            batch = next(batches)
            data, target = batch["data"], batch["target"]
        return labelled_canvas(
            self._geometry,
            data,
            target,
            intensities=self._intensities,
            ignore_label=self._ignore_label,
        )

    @property
    def _ignore_label(self) -> int | None:
        label: int | None = self._dataset.label_manager.ignore_label
        return label

    def _recipe(self, identifier: str) -> dict[str, Any]:
        _, stored, _, properties = self._cases.load_case(identifier)
        labels = np.ascontiguousarray(stored[:])
        settings = self._dataset.settings.to_dict()
        augmentation = {name: settings["fine_tuning"][name] for name in ("shift_fraction", "bezier_probability")}
        return {
            "image": image_hash(properties),
            "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
            "weights": self._weights,
            "sam.model": settings["sam"]["model"],
            "stitching": _as_json(dataclasses.asdict(self._geometry)),
            "sam.window": list(settings["sam"]["window"]),
            "fine_tuning.seed": self._settings.seed,
            **{f"fine_tuning.{name}": value for name, value in augmentation.items()},
            **self._repaired_since(identifier, labels),
        }

    def _repaired_since(self, identifier: str, labels: np.ndarray) -> dict[str, Any]:
        """What was repaired since views are kept, for the cases whose views it changed; others keep theirs."""
        share = foreground_share(len(self._patches(identifier)))
        curves = self._dataset.settings.fine_tuning.bezier_probability > 0 and self._geometry.slice_axis > 0
        return {
            **({"share of views on foreground": share} if share else {}),
            **({"outside the mask": "black background"} if (labels < 0).any() else {}),
            **({"with an ignore label": "shown whole"} if not share and self._ignore_label is not None else {}),
            **({"axis of intensity curves": self._geometry.slice_axis} if curves else {}),
        }


def foreground_share(patches: int) -> float:
    """Share of a case's augmented views that are centred on foreground: nnU-Net's, if it has more voxels than a patch.

    A case that fits into a patch is labelled whole and in the middle; centred on a voxel, part of it would be cut off.

    Args:
        patches: that the case is large (:func:`spread_patches`).
    """
    return OVERSAMPLE_FOREGROUND if patches > 1 else 0.0


def number_of_views(patches: int, views: int, draws: float) -> int:
    """Views of one case: ``views`` for each patch that it is large, or those patches and as many as will be drawn.

    Args:
        patches: that the case is large (:func:`spread_patches`).
        views: of each patch, of which the first is the patch itself.
        draws: how often the case is drawn on average.
    """
    return min(patches * views, patches + math.ceil(draws))


def expected_draws(
    identifiers: Sequence[str], sampling_probabilities: Sequence[float] | None, draws: float
) -> dict[str, float]:
    """How often each case is drawn on average.

    Args:
        identifiers: of the cases.
        sampling_probabilities: of each case, in that order; None for equal ones.
        draws: in all.
    """
    chances = sampling_probabilities or [1 / len(identifiers)] * len(identifiers)
    return {identifier: draws * chance for identifier, chance in zip(identifiers, chances, strict=True)}


def view_seed(seed: int, identifier: str, slice_axis: int, index: int) -> int:
    """Seed of one view, from 0 to 2**32 - 1.

    Args:
        seed: of fine-tuning.
        identifier: of the case.
        slice_axis: across which the view was cut into slices.
        index: of the view, from 0.
    """
    digest = hashlib.sha256(f"{seed}/{identifier}/{slice_axis}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def spread_patches(shape: Sequence[int], patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """As many of the patches that cover a volume as have its number of voxels, spread over it.

    A volume that is a little longer than a patch along each axis has eight patches that cover it, but hardly more
    voxels than one.

    Args:
        shape: (D, H, W) of the volume in voxels.
        patch_size: (D, H, W) in voxels.

    Returns:
        the first voxel (D, H, W) of each; negative where a patch is larger than the volume.
    """
    corners = covering_patches(shape, patch_size)
    count = min(len(corners), math.ceil(math.prod(shape) / math.prod(patch_size)))
    return [corners[index * len(corners) // count] for index in range(count)]


def covering_patches(shape: Sequence[int], patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """First voxels (D, H, W) of as few patches as cover a volume; where it is smaller, the patch is centred on it.

    Args:
        shape: of the volume in voxels.
        patch_size: in voxels.
    """
    missing = [max(0, size - length) for length, size in zip(shape, patch_size, strict=True)]
    padded = tuple(length + pad for length, pad in zip(shape, missing, strict=True))
    steps = compute_steps_for_sliding_window(padded, tuple(patch_size), 1.0)
    shifted = [[start - pad // 2 for start in axis] for axis, pad in zip(steps, missing, strict=True)]
    corners = np.stack(np.meshgrid(*shifted, indexing="ij"), axis=-1).reshape(math.prod(map(len, shifted)), -1)
    return [tuple(int(start) for start in corner) for corner in corners]


class EmbeddedViews:
    """Endless batches of embedded views.

    Args:
        store: with the views.
        counts: number of views in every folder of the store.
        sampling_probabilities: of each case, in the order of ``counts``; None for equal ones.
        batch_size: views in a batch, over all processes.
        part: which share of every batch this process reads, from 0.
        parts: number of processes.
    """

    def __init__(
        self,
        store: ViewStore,
        counts: Mapping[str, int],
        sampling_probabilities: Sequence[float] | None,
        *,
        batch_size: int,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._store = store
        self._folders = list(counts)
        self._counts = list(counts.values())
        self._chances = torch.tensor(sampling_probabilities or [1.0] * len(counts), dtype=torch.float64)
        self._batch_size = batch_size
        self._part, self._parts = part, parts

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Embeddings [B, dim, h, w] and targets [B, S, S]; every process draws the whole batch and reads its share."""
        drawn = torch.multinomial(self._chances, self._batch_size, replacement=True).tolist()
        views = [(case, int(torch.randint(self._counts[case], ()))) for case in drawn]
        read = [self._store.read(self._folders[case], index) for case, index in views[self._part :: self._parts]]
        embeddings, targets = zip(*read, strict=True)
        return torch.stack(embeddings), torch.stack(targets)


class _OneCase:
    """One case of several, for nnU-Net's loader."""

    def __init__(self, cases: LoadableCases, identifier: str) -> None:
        self.identifiers: Sequence[str] = [identifier]
        self.load_case = cases.load_case


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
