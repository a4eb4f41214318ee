"""From what a labeller predicts for one case to its label map and confidence record; nothing is written here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_sfr.confidence import confidence_record, decision_probability
from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.preprocessed_files import image_hash
from nnunet_sfr.data.preprocessed_grid import check_grid
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.label_decision import DECISION_RULES
from nnunet_sfr.region_labels import labels_of_regions


@dataclass(frozen=True)
class Prediction:
    """One of several predictions of the same case.

    Args:
        probabilities: (C, D, H, W), float32, on the CPU, on the grid of the image.
        plane: index of the axis across which the image was cut into slices, for those who cut it in several ways.
        mirrored: whether it is that of a mirrored image, mirrored back.
    """

    probabilities: torch.Tensor
    plane: int = 0
    mirrored: bool = False


class Labeller(Protocol):
    """Something that predicts whole cases on the preprocessed grid."""

    @property
    def regions(self) -> bool:
        """Whether it gives one sigmoid per region of nnU-Net's, or a softmax over label values."""

    @property
    def average(self) -> bool:
        """Whether mirrored images count in the mean by which labels are decided."""

    @property
    def decision(self) -> str:
        """The rule by which a softmax becomes labels, a key of :data:`nnunet_sfr.label_decision.DECISION_RULES`."""

    def case_probabilities(self, case: LoadedCase, *, mirrored: bool) -> Iterator[Prediction]:
        """Head probabilities of one case.

        Args:
            case: to predict.
            mirrored: whether to continue with the mirrored images.

        Yields:
            Plane after plane, the prediction of the image and, with ``mirrored``, of the image mirrored along one axis
            after the other (those that the model was trained to mirror).
        """


@dataclass(frozen=True)
class LoadedCase:
    """An unlabelled case, opened once.

    Args:
        identifier: of the case.
        image: (channels, D, H, W), preprocessed; a blosc2 array, which is read by ``image[:]``.
        mask: (1, D, H, W), -1 outside the image's non-zero mask; a blosc2 array too.
        properties: as nnU-Net's preprocessing recorded them.
    """

    identifier: str
    image: Any
    mask: Any
    properties: Mapping[str, Any]

    @classmethod
    def open(cls, identifier: str, cases: UnlabelledDataset, dataset: SFRDataset) -> LoadedCase:
        """Open a case and check that it fits the plan.

        Args:
            identifier: of the case.
            cases: preprocessed, unlabelled.
            dataset: whose plan it must fit.

        Raises:
            UserError: it was preprocessed for another grid.
        """
        image, mask, _, properties = cases.load_case(identifier)
        check_grid(properties, image.shape, dataset.plans_manager, dataset.configuration_manager, identifier)
        return cls(identifier, image, mask, properties)


@dataclass(frozen=True)
class CaseLabels:
    """What is stored of a case.

    Args:
        labels: (1, D, H, W) integers, -1 outside the image's non-zero mask.
        record: confidence, and the hash of the image that was labelled; JSON types.
        voxel_confidence: (D, H, W), the probability of each voxel's label; None where unknown.
    """

    labels: np.ndarray
    record: Mapping[str, Any]
    voxel_confidence: np.ndarray | None = None


def label_case(
    case: LoadedCase,
    labeller: Labeller,
    dataset: SFRDataset,
    *,
    mirrored: bool = False,
    references: Mapping[str, torch.Tensor | None] | None = None,
    of_references: Mapping[str, float | None] | None = None,
    fusion: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
) -> CaseLabels:
    """Decide on a label for every voxel of a case, and say how certain the decision is.

    Args:
        case: to label.
        labeller: predicts it.
        dataset: gives labels and regions.
        mirrored: whether to predict the mirrored images too, for the confidence.
        references: label maps (D, H, W) to compare with, by the entry of the record that they give.
        of_references: entries that the record takes from theirs.
        fusion: mixes another source into the probabilities (C, D, H, W) of a case before they decide; the comparisons
            with mirrored images and between planes stay those of the labeller.

    Raises:
        UserError: a probability is not finite (an argmax over NaN would pass for a label).
    """
    predictions = labeller.case_probabilities(case, mirrored=mirrored)
    combined = _combine(case.identifier, predictions, dataset.label_manager, labeller)
    probabilities = combined.probabilities
    if fusion is not None:
        probabilities = fusion(case.identifier, probabilities)
    labels = labels_from_probabilities(probabilities, dataset.label_manager, labeller)
    certainty = decision_probability(probabilities, labels, regions=labeller.regions)
    confidence = confidence_record(
        probabilities,
        labels,
        num_classes=dataset.num_classes,
        regions=labeller.regions,
        mirrored=combined.single,
        planes=combined.planes,
        others=references or {},
        certainty=certainty,
    )
    values = labels.numpy()[None]
    # nnU-Net marks background outside the image's non-zero mask by -1; its masked augmentation relies on that
    stored = np.where((case.mask[:] < 0) & (values == 0), -1, values)
    record = {**confidence, **(of_references or {}), "input": image_hash(case.properties)}
    return CaseLabels(stored, record, certainty.float().numpy())


@dataclass(frozen=True)
class _Combined:
    """What the predictions of a case say together.

    Args:
        probabilities: (C, D, H, W), to decide by.
        single: label maps (D, H, W) of single predictions, to compare the decision with.
        planes: label maps (D, H, W) of each plane by itself; none if there is only one.
    """

    probabilities: torch.Tensor
    single: list[torch.Tensor]
    planes: list[torch.Tensor]


def _combine(
    identifier: str, predictions: Iterator[Prediction], label_manager: LabelManager, labeller: Labeller
) -> _Combined:
    """The mean over planes, and over mirrored images if they count.

    Predictions are added up one by one, so that memory does not depend on the number of mirrored images.
    """
    total: torch.Tensor | None = None
    count = 0
    single: list[torch.Tensor] = []
    planes: list[torch.Tensor] = []
    any_mirrored = False
    for _, of_plane in itertools.groupby(predictions, key=lambda prediction: prediction.plane):
        plane: torch.Tensor | None = None
        before = count
        for prediction in of_plane:
            probabilities = require_finite(identifier, prediction.probabilities)
            any_mirrored |= prediction.mirrored
            if prediction.mirrored or labeller.average:
                single.append(labels_from_probabilities(probabilities, label_manager, labeller))
            if not prediction.mirrored or labeller.average:
                # not in place: predictions come from inference mode
                plane = probabilities if plane is None else plane + probabilities
                count += 1
        assert plane is not None  # a plane begins with the image itself
        planes.append(labels_from_probabilities(plane / (count - before), label_manager, labeller))
        total = plane if total is None else total + plane
    assert total is not None
    return _Combined(
        total / count if count > 1 else total, single if any_mirrored else [], planes if len(planes) > 1 else []
    )


def require_finite(identifier: str, probabilities: torch.Tensor) -> torch.Tensor:
    """The probabilities themselves, of any shape: an argmax over NaN would pass for a label.

    Args:
        identifier: of the case, for the message.
        probabilities: that something predicted.

    Raises:
        UserError: some are NaN or infinite.
    """
    if not torch.isfinite(probabilities).all():
        raise UserError(f"{identifier}: the prediction has numbers that are not finite; did the training diverge?")
    return probabilities


def labels_from_probabilities(
    probabilities: torch.Tensor, label_manager: LabelManager, labeller: Labeller
) -> torch.Tensor:
    """Label values (D, H, W) from head probabilities (C, D, H, W): the labeller's rule, or that of regions.

    Args:
        probabilities: after nnU-Net's non-linearity.
        label_manager: gives the rule for regions.
        labeller: tells whether the heads are nnU-Net's regions (sigmoid) or label values (softmax; SAM predicts label
            values even where nnU-Net trains regions), and its rule for those.
    """
    if not labeller.regions:
        return DECISION_RULES[labeller.decision].decide(probabilities)
    return labels_of_regions(probabilities, label_manager)


def predict_mirrored(
    predict: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, axes: Sequence[int], plane: int = 0
) -> Iterator[Prediction]:
    """Predict an image (channels, D, H, W) mirrored along one axis after the other (D is 1).

    Args:
        predict: from an image to a result with the same last three axes.
        image: (channels, D, H, W).
        axes: of the result and the image along which they are mirrored.
        plane: index of the axis across which the image is cut into slices, for the result.
    """
    for axis in axes:
        yield Prediction(torch.flip(predict(torch.flip(image, (axis,))), (axis,)), plane, mirrored=True)
