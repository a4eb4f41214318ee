"""Cases that are darker than every case SAM was fine-tuned on.

In MRI a bright organ at the rim of the image (a liver beside the coil) stretches the range between the percentiles, and
everything else becomes dark: SAM then finds nothing. The median of an image in [0, 1] tells. A case whose median m is
lower than that of every labelled case is raised, voxel by voxel, to the power

    g = max(log t / log m, 0.5)

with t the mean of the labelled cases' medians: its median becomes t, or comes as near to it as 0.5 allows. An image
that is as bright as one of the labelled stays as it is; so does fine-tuning, which sees no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_stage.intensities import Intensities, intensities_of_case

LOWEST_EXPONENT = 0.5
"""Lower ones make noise of what little range such an image has left."""


@dataclass(frozen=True)
class Brightness:
    """How bright the labelled cases are: medians in [0, 1].

    Args:
        channels: whose limits are those of each case, from 0; the others stay as they are.
        lowest: the median of the darkest case, for each of these channels.
        mean: of the cases' medians, for each of these channels.
    """

    channels: tuple[int, ...]
    lowest: tuple[float, ...]
    mean: tuple[float, ...]

    @classmethod
    def of(cls, channels: Iterable[int], images: Iterable[tuple[NDArray[np.float32], Any]]) -> Brightness:
        """Measure labelled cases.

        Args:
            channels: to measure.
            images: (channels, D, H, W) in [0, 1] and mask (D, H, W) or None, one for each case; at least one.
        """
        channels = tuple(channels)
        medians = np.array([[_median(image[channel], mask) for channel in channels] for image, mask in images])
        return cls(channels, tuple(medians.min(axis=0).tolist()), tuple(medians.mean(axis=0).tolist()))

    def brightened(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """The image itself, or a copy in which channels that are darker than every labelled one are brighter.

        Args:
            image: (channels, D, H, W) in [0, 1].
            mask: (D, H, W), where the median is taken; None for everywhere.
        """
        exponents = np.ones((len(image), 1, 1, 1), dtype=np.float32)
        for channel, lowest, mean in zip(self.channels, self.lowest, self.mean, strict=True):
            median = _median(image[channel], mask)
            if median < lowest:
                exponents[channel] = _exponent(median, mean)
        return image if (exponents == 1).all() else image**exponents


def brightness_of_labelled(dataset: SFRDataset, fold: Fold, intensities: Intensities) -> Brightness | None:
    """Measure the cases that a fold's SAM was fine-tuned on; None where no channel's limits are those of a case.

    Args:
        dataset: planned and preprocessed.
        fold: whose training cases.
        intensities: of the model.

    Raises:
        UserError: a case cannot be read.
    """
    if not intensities.limited_by_case:
        return None
    identifiers, _ = dataset.split(fold)
    cases = LabelledDataset(str(dataset.paths.labelled), identifiers)
    return Brightness.of(intensities.limited_by_case, (_mapped(cases, name, intensities) for name in identifiers))


def inside(mask: Any, intensities: Intensities) -> NDArray[np.bool_] | None:
    """Where the median of a case is taken: in its non-zero mask, where the model's values depend on that.

    Args:
        mask: (1, D, H, W), negative outside; read by ``mask[:]``.
        intensities: of the model.
    """
    if not intensities.uses_mask:
        return None
    voxels: NDArray[np.bool_] = mask[:][0] >= 0
    return voxels if voxels.any() else None


def _mapped(
    cases: LabelledDataset, identifier: str, intensities: Intensities
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    image, labels, _, _ = cases.load_case(identifier)
    return intensities_of_case(intensities, image[:], labels), inside(labels, intensities)


def _median(channel: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> float:
    return float(np.median(channel if mask is None else channel[mask]))


def _exponent(median: float, target: float) -> float:
    """By which a channel is raised so that its median becomes the target, which lies above it and below 1."""
    return max(math.log(target) / math.log(median), LOWEST_EXPONENT) if median > 0 else LOWEST_EXPONENT
