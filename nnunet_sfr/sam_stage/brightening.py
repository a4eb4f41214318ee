"""Cases that are far darker than every case SAM was fine-tuned on.

In MRI a bright organ at the rim of the image (a liver beside the coil) stretches the range between the percentiles, and
everything else becomes dark: SAM then finds nothing. The median of an image in [0, 1] tells. Where the median m of
a case's channel is far below the lowest one l of the fine-tuning,

    m < l^1.5,

the channel is raised, voxel by voxel, to the power

    g = max(log t / log m, 0.5)

with t the mean of the medians of the fine-tuning: the median becomes t, or comes as near to it as 0.5 allows. All other
channels stay as they are: brought nearer to a single labelled case that is bright, most cases lose (docs/results.md).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_sfr.data.datasets import LoadableCases
from nnunet_sfr.sam_stage.intensities import Intensities, intensities_of_case, normalised_voxels

FAR = 1.5
"""A median below the lowest one of the fine-tuning, raised to this power, marks a case as far darker."""
LOWEST_EXPONENT = 0.5
"""Lower ones amplify the noise of what little range such an image has left."""


@dataclass(frozen=True)
class Brightness:
    """How bright cases are: medians in [0, 1] of the channels in ``Intensities.limited_by_case``, in their order.

    Args:
        lowest: of the darkest case.
        mean: over cases.
    """

    lowest: tuple[float, ...]
    mean: tuple[float, ...]

    @classmethod
    def of(cls, cases: LoadableCases, intensities: Intensities) -> Brightness | None:
        """Measure cases; None where there are none, or no channel has limits of each case's own.

        Args:
            cases: preprocessed.
            intensities: of the model.
        """
        if not intensities.limited_by_case or not cases.identifiers:
            return None
        medians = []
        for identifier in cases.identifiers:
            image, labels, _, _ = cases.load_case(identifier)
            medians.append(_medians(intensities_of_case(intensities, image[:], labels), labels, intensities))
        return cls(tuple(np.min(medians, axis=0).tolist()), tuple(np.mean(medians, axis=0).tolist()))

    @classmethod
    def from_json(cls, text: str) -> Brightness:
        """Inverse of :meth:`to_json`."""
        content = json.loads(text)
        return cls(tuple(content["lowest"]), tuple(content["mean"]))

    def to_json(self) -> str:
        """As metadata of an adapter."""
        return json.dumps(asdict(self))

    def brightened(self, image: NDArray[np.float32], mask: Any, intensities: Intensities) -> NDArray[np.float32]:
        """The image itself, or a copy in which the channels that are far darker than in every case are brighter.

        Args:
            image: (channels, D, H, W) with the model's intensities.
            mask: (1, D, H, W), negative outside the non-zero mask; read by ``mask[:]`` where it is needed.
            intensities: of the model.
        """
        exponents = np.ones((len(image), 1, 1, 1), dtype=np.float32)
        medians = _medians(image, mask, intensities)
        for channel, median, lowest, mean in zip(
            intensities.limited_by_case, medians, self.lowest, self.mean, strict=True
        ):
            if median < lowest**FAR:
                exponents[channel] = _exponent(median, mean)
        return image if (exponents == 1).all() else image**exponents


def _medians(image: NDArray[np.float32], mask: Any, intensities: Intensities) -> list[float]:
    """Of every channel with limits of the case's own; inside the non-zero mask where nnU-Net normalised inside it."""
    inside = mask[:][0] >= 0 if intensities.masked else None
    return [
        float(np.median(normalised_voxels(image[channel], channel, intensities.masked, inside)))
        for channel in intensities.limited_by_case
    ]


def _exponent(median: float, target: float) -> float:
    """By which a channel is raised so that its median becomes the target, which lies above it."""
    return max(math.log(target) / math.log(median), LOWEST_EXPONENT) if median > 0 else LOWEST_EXPONENT
