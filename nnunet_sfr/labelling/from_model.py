"""Pseudo-labels from a trained nnU-Net model of any plan, for ``sfr_pseudolabel --from-model``.

The raw image goes through the model's own preprocessor and network. Its grid and ours sample the same crop of the same
image, so the logits need no way back to the original grid: the axes are put in our order, and the logits resampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_grid import with_slice_distance
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.raw_cases import RawCase
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.labelling.case_labels import LoadedCase, Prediction, predict_mirrored
from nnunet_sfr.labelling.filling import ALL_CASES, CasePartition, fill_store
from nnunet_sfr.labelling.nnunet_predictor import PredictorLabeller, mirrored_axes, without_mirroring
from nnunet_sfr.labelling.raw_files import raw_files
from nnunet_sfr.labelling.trained_model import TrainedModel, open_model
from nnunet_sfr.paths import FINAL_CHECKPOINT, Fold
from nnunet_sfr.wording import reason

CHECKPOINT = FINAL_CHECKPOINT


def label_from_model(
    dataset: SFRDataset,
    fold: Fold,
    device: torch.device,
    *,
    model_folder: Path,
    model_folds: Sequence[Fold] | None = None,
    checkpoint: str = CHECKPOINT,
    trust: bool = False,
    partition: CasePartition = ALL_CASES,
) -> PseudoLabelStore:
    """Label the unlabelled cases that the store does not have yet with a trained nnU-Net model.

    Args:
        dataset: planned and preprocessed.
        fold: whose training reads the store.
        device: to compute on.
        model_folder: ``<Trainer>__<Plans>__<configuration>``, of any trainer and plan.
        model_folds: of the model, to average; None for all that have the checkpoint.
        checkpoint: file name in each of these folds.
        trust: whether the model's files may run code (see :func:`nnunet_sfr.labelling.trained_model.open_model`).
        partition: what this call takes of the work.

    Raises:
        UserError: a fold that does not exist, no unlabelled cases or raw images, a model that cannot be used (see
            :func:`nnunet_sfr.labelling.trained_model.open_model`), or a store of another maker.
    """
    dataset.split(fold)  # refuses a fold that no training can have
    raw = raw_files(dataset, UnlabelledDataset(dataset.paths.unlabelled))
    model = open_model(model_folder, model_folds, checkpoint, dataset, device, trust=trust)
    print(f"{model_folder.resolve().name}: {', '.join(file.parent.name for file in model.checkpoints)}")
    return fill_store(
        dataset,
        dataset.paths.pseudo_labels(fold),
        ModelLabeller(model, dataset, raw),
        Provenance.of_model(model.checkpoints, dataset.settings, fold=fold, trainer=model.predictor.trainer_name),
        partition=partition,
    )


class ModelLabeller(PredictorLabeller):
    """Predicts raw images with a trained model, onto our preprocessed grid.

    Args:
        model: opened for ``dataset``.
        dataset: gives our grid.
        raw: raw files by identifier.
    """

    def __init__(self, model: TrainedModel, dataset: SFRDataset, raw: Mapping[str, RawCase]) -> None:
        super().__init__(model.predictor)
        self._dataset = dataset
        self._raw = raw

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        """Head probabilities (C, D, H, W) on our grid, float32: softmax over label values, or a sigmoid per region.

        Args:
            case: preprocessed.
            mirrored: whether those of the mirrored images follow.

        Raises:
            UserError: the image cannot be read, or the model's reader or preprocessor sees another part of it.
        """
        raw, shape, spacing = self._raw[case.identifier], case.image.shape[1:], case.properties["spacing"]
        images, found = self._read(raw)
        plans, configuration = self._predictor.plans_manager, self._predictor.configuration_manager
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, found = preprocessor.run_case_npy(
            images, None, found, plans, configuration, self._predictor.dataset_json
        )
        self._check_crop(raw, found, case.properties)
        predict = self._predictor.predict_logits_from_preprocessed_data
        of_model = torch.from_numpy(np.ascontiguousarray(data))
        yield Prediction(self._on_our_grid(predict(of_model), shape, spacing))
        if mirrored:
            with without_mirroring(self._predictor):
                for logits in predict_mirrored(predict, of_model, mirrored_axes(self._predictor)):
                    probabilities = self._on_our_grid(logits.probabilities, shape, spacing)
                    yield Prediction(probabilities, mirrored=True)

    def _on_our_grid(self, logits: torch.Tensor, shape: Sequence[int], spacing: Sequence[float]) -> torch.Tensor:
        resampled = self._resample(logits.numpy(), shape, spacing)
        probabilities: torch.Tensor = self._predictor.label_manager.apply_inference_nonlin(resampled)
        return probabilities

    def _read(self, case: RawCase) -> tuple[np.ndarray, dict[str, Any]]:
        """The image (channels, and three axes) and its properties, as the model's reader gives them."""
        ours, theirs = (manager.image_reader_writer_class for manager in (self._dataset.plans_manager, self._plans))
        files = [str(file) for file in case.images]
        try:
            images, properties = theirs().read_images(files)
            same = theirs is ours or _same_voxels(images, ours().read_images(files)[0])
        except Exception as error:
            raise UserError(f"{files[0]}: the model's {theirs.__name__} cannot read it ({reason(error)})") from None
        if not same:
            raise UserError(
                f"{files[0]}: the model's {theirs.__name__} turns this image otherwise than our {ours.__name__}, so "
                "its predictions would not fit; predict with nnUNetv2_predict and use --from-images"
            )
        return images, properties

    @property
    def _plans(self) -> PlansManager:
        return self._predictor.plans_manager

    @property
    def _axes(self) -> list[int]:
        """Axis i of our grid is axis ``_axes[i]`` of the model's."""
        return [
            list(self._plans.transpose_forward).index(axis) for axis in self._dataset.plans_manager.transpose_forward
        ]

    def _check_crop(self, case: RawCase, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        for key in ("shape_before_cropping", "bbox_used_for_cropping"):
            of_model = np.asarray(theirs[key])[self._axes]
            if not np.array_equal(of_model, np.asarray(ours[key])):
                raise UserError(
                    f"{case.images[0]}: the model's preprocessor crops it to {of_model.tolist()} and ours to "
                    f"{np.asarray(ours[key]).tolist()}; predict with nnUNetv2_predict and use --from-images"
                )

    def _resample(self, logits: np.ndarray, shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
        """Logits (C, and the model's three axes) onto our grid (C, D, H, W) of the given shape.

        Args:
            logits: of the model.
            shape: (D, H, W) of our preprocessed image.
            spacing: of the original image, in mm, in the reader's order of axes.
        """
        in_our_order = logits.transpose(0, *(axis + 1 for axis in self._axes))
        if in_our_order.shape[1:] == tuple(shape):
            return in_our_order
        configuration = self._predictor.configuration_manager
        model_spacing = _target_spacing(self._plans, configuration, spacing)
        resampled = configuration.resampling_fn_probabilities(
            in_our_order,
            shape,
            [model_spacing[axis] for axis in self._axes],
            _target_spacing(self._dataset.plans_manager, self._dataset.configuration_manager, spacing),
        )
        if resampled.shape[1:] != tuple(shape):
            name = configuration.configuration["resampling_fn_probabilities"]
            raise UserError(f"the model's plan resamples with {name}, which does not lead from its grid to ours")
        return np.asarray(resampled)


def _target_spacing(plans: PlansManager, configuration: ConfigurationManager, original: Sequence[float]) -> list[float]:
    """Spacing of a preprocessed case in mm, in the plan's order of axes."""
    return with_slice_distance(configuration.spacing, original[plans.transpose_forward[0]])


def _same_voxels(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.allclose(first, second)
