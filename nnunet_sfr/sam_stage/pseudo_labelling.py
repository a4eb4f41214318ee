"""Pseudo-labels for the unlabelled cases from the fine-tuned SAM (docs/method.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from tqdm import tqdm

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.labelling.case_labels import Labeller, LoadedCase, Prediction, predict_mirrored
from nnunet_sfr.labelling.filling import ALL_CASES, CasePartition, ReferenceStores, fill_store
from nnunet_sfr.labelling.fusion import Fusion
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_stage.brightening import Brightness
from nnunet_sfr.sam_stage.intensities import Intensities, intensities_of, intensities_of_case
from nnunet_sfr.sam_stage.model import all_for_inference, brightness_of, build_for_every_axis, load_adapter
from nnunet_sfr.sam_stage.prediction import smoothed_predictor
from nnunet_sfr.sam_stage.sam import StitchedSAM


def pseudo_label(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    adapter: str,
    round_index: int = 0,
    partition: CasePartition = ALL_CASES,
) -> PseudoLabelStore:
    """Label the unlabelled cases that the store does not have yet.

    In a later round the cases of high confidence are labelled too, so that rounds can be compared; the trainer leaves
    them out.

    Args:
        dataset: planned, preprocessed, and with a fine-tuned SAM.
        fold: whose SAM.
        device: to compute on.
        adapter: file name of the adapter in the SAM stage's folder.
        round_index: 0, or the round of SFR+.
        partition: what this call takes of the work.

    Raises:
        UserError: no adapter, no unlabelled cases, cases of another grid, or a store of another maker.
    """
    UnlabelledDataset(dataset.paths.unlabelled)  # without cases there is nothing to build SAM for
    paths = dataset.paths
    before, fusion = None, None
    if round_index > 0:
        previous = paths.pseudo_labels(fold, round_index=round_index - 1)
        before = PseudoLabelStore.open_if_there(previous, grid=dataset.grid)
        fusion = _fusion(dataset, fold, round_index)
    return fill_store(
        dataset,
        paths.pseudo_labels(fold, round_index=round_index),
        sam_labeller(dataset, fold, device, adapter=adapter, round_index=round_index),
        Provenance.of_sam(
            adapter_files(dataset, fold, adapter, round_index),
            dataset.settings,
            fold=fold,
            round_index=round_index,
            fused_with=None if fusion is None else (fusion.share, fusion.store.made_by),
        ),
        partition=partition,
        references=ReferenceStores(previous_round=before),
        fusion=fusion,
    )


def _fusion(dataset: SFRDataset, fold: Fold, round_index: int) -> Fusion | None:
    """The re-trained model's labels before a round of SFR+, as far as ``rounds.model_share`` takes them."""
    share = dataset.settings.rounds.model_share
    if share == 0:
        return None
    return Fusion(PseudoLabelStore.open(dataset.paths.model_pseudo_labels(fold, round_index), grid=dataset.grid), share)


def adapter_files(dataset: SFRDataset, fold: Fold, adapter: str, round_index: int = 0) -> list[Path]:
    """The adapter of each axis across which patches are cut into slices.

    Args:
        dataset: planned.
        fold: whose SAM.
        adapter: file name of the adapter.
        round_index: 0 for SFR, from 1 on for SFR+.
    """
    return [plane.paths.sam_stage(fold, round_index) / adapter for plane in dataset.planes]


def sam_labeller(
    dataset: SFRDataset, fold: Fold, device: torch.device, *, adapter: str, round_index: int = 0
) -> Labeller:
    """A fine-tuned SAM as what labels cases.

    Args:
        dataset: planned, and with a fine-tuned SAM.
        fold: whose SAM.
        device: to compute on.
        adapter: file name of the adapter in the SAM stage's folder.
        round_index: 0, or the round of SFR+.

    Raises:
        UserError: no adapter, or one that does not fit.
    """
    models = build_for_every_axis(dataset)
    files = adapter_files(dataset, fold, adapter, round_index)
    for model, plane, file in zip(models, dataset.planes, files, strict=True):
        load_adapter(model, plane, file)
    planes = [_predictors(model, dataset, device) for model in all_for_inference(models)]
    settings = dataset.settings.pseudo_labels
    brightness = brightness_of(files[0]) if settings.brighten_dark_cases else None
    return _SAMLabeller(intensities_of(dataset), planes, settings.average_mirrored, settings.decision, brightness)


@dataclass(frozen=True)
class _Predictors:
    """Of one axis across which patches are cut into slices; both give (K, D, H, W), smoothed across slices.

    Args:
        as_set: from an image (channels, D, H, W) with SAM's intensities, as the settings say.
        plain: the same without averaging over mirrored patches.
        mirrored_axes: of image and result that fine-tuning mirrors: those along which a patch is longer than a voxel.
    """

    as_set: Callable[[torch.Tensor], torch.Tensor]
    plain: Callable[[torch.Tensor], torch.Tensor]
    mirrored_axes: Sequence[int]


def _predictors(model: StitchedSAM, dataset: SFRDataset, device: torch.device) -> _Predictors:
    settings = dataset.settings.pseudo_labels
    return _Predictors(
        as_set=smoothed_predictor(model, dataset, settings, device),
        plain=smoothed_predictor(model, dataset, replace(settings, use_mirroring=False), device),
        mirrored_axes=[axis for axis, length in enumerate(model.geometry.patch_size, start=1) if length > 1],
    )


@dataclass(frozen=True)
class _SAMLabeller:
    intensities: Intensities
    planes: Sequence[_Predictors]
    average: bool
    decision: str
    brightness: Brightness | None = None
    regions: ClassVar[bool] = False
    """SAM predicts label values, also where nnU-Net trains regions."""

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        image = intensities_of_case(self.intensities, case.image[:], case.mask)
        if self.brightness is not None:
            as_it_is = image
            image = self.brightness.brightened(image, case.mask, self.intensities)
            if image is not as_it_is:
                told = "far darker than every case that SAM learned from; it sees a brighter image"
                tqdm.write(f"{case.identifier}: {told} (pseudo_labels.brighten_dark_cases)")
        array = torch.from_numpy(image)
        for index, plane in enumerate(self.planes):
            yield Prediction(plane.as_set(array), index)
            if mirrored:
                yield from predict_mirrored(plane.plain, array, plane.mirrored_axes, index)
