"""Cases that are far darker than every case SAM was fine-tuned on.

In MRI a bright organ at the rim of the image (a liver beside the coil) stretches the range between the percentiles, and
everything else becomes dark: SAM then finds nothing. Two quantiles of an image in [0, 1] tell. Where the median m and
the 90th percentile q of a case's channel are both far below the lowest ones of the fine-tuning, l and h,

    m < l^1.5 and q < h^1.5,

the channel is raised, voxel by voxel, to the power

    g = max(log t / log m, 0.5)

with t the mean of the medians of the fine-tuning: the median becomes t, or comes as near to it as 0.5 allows. The
median alone would take more air around the patient for darkness; the brightest tenth is tissue in either case. All
other channels stay as they are: brought nearer to a single labelled case that is bright, most cases lose
(docs/results.md).
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
"""Quantiles below the lowest ones of the fine-tuning, raised to this power, mark a case as far darker."""
LOWEST_EXPONENT = 0.5
"""Lower ones amplify the noise of what little range such an image has left."""
_QUANTILES = (0.5, 0.9)


@dataclass(frozen=True)
class Brightness:
    """How bright cases are, in [0, 1], by the channels in ``Intensities.limited_by_case``, in their order.

    Args:
        lowest: median, of the case in which it is lowest.
        mean: of the medians.
        lowest_high: 90th percentile, of the case in which it is lowest.
    """

    lowest: tuple[float, ...]
    mean: tuple[float, ...]
    lowest_high: tuple[float, ...]

    @classmethod
    def of(cls, cases: LoadableCases, intensities: Intensities) -> Brightness | None:
        """Measure cases; None where there are none, or no channel has limits of each case's own.

        Args:
            cases: preprocessed.
            intensities: of the model.
        """
        if not intensities.limited_by_case or not cases.identifiers:
            return None
        of_cases = []
        for identifier in cases.identifiers:
            image, labels, _, _ = cases.load_case(identifier)
            of_cases.append(_quantiles(intensities_of_case(intensities, image[:], labels), labels, intensities))
        lowest, lowest_high = np.min(of_cases, axis=0).T.tolist()
        mean, _ = np.mean(of_cases, axis=0).T.tolist()
        return cls(tuple(lowest), tuple(mean), tuple(lowest_high))

    @classmethod
    def from_json(cls, text: str) -> Brightness | None:
        """Inverse of :meth:`to_json`; None of an adapter that does not know the 90th percentile."""
        content = json.loads(text)
        if "lowest_high" not in content:
            return None
        return cls(tuple(content["lowest"]), tuple(content["mean"]), tuple(content["lowest_high"]))

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
        seen = zip(self.lowest, self.lowest_high, self.mean, strict=True)
        quantiles = _quantiles(image, mask, intensities)
        for channel, (median, high), (lowest, lowest_high, mean) in zip(
            intensities.limited_by_case, quantiles, seen, strict=True
        ):
            if median < lowest**FAR and high < lowest_high**FAR:
                exponents[channel] = _exponent(median, mean)
        return image if (exponents == 1).all() else image**exponents


def _quantiles(image: NDArray[np.float32], mask: Any, intensities: Intensities) -> list[tuple[float, float]]:
    """Median and 90th percentile of every channel with limits of the case's own; inside the non-zero mask where nnU-Net
    normalised inside it."""
    inside = mask[:][0] >= 0 if intensities.masked else None
    voxels = (
        normalised_voxels(image[channel], channel, intensities.masked, inside)
        for channel in intensities.limited_by_case
    )
    return [tuple(np.quantile(values, _QUANTILES).tolist()) for values in voxels]


def _exponent(median: float, target: float) -> float:
    """By which a channel is raised so that its median becomes the target, which lies above it."""
    return max(math.log(target) / math.log(median), LOWEST_EXPONENT) if median > 0 else LOWEST_EXPONENT
