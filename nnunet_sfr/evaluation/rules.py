"""What the metrics are called, which way is better, and what holds where one has no value of its own.

Imports nothing, for the help shows it.
"""

from __future__ import annotations

NSD_TOLERANCE_MM = 2.0
"""How far apart surfaces may be to agree. What two annotators differ by would be best, where that is known."""
HD_PERCENTILE = 95

TITLES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hd95_mm": "95HD",
    "asd_mm": "ASD",
    "assd_mm": "ASSD",
    "nsd": "NSD",
}
"""The metrics that are shown and compared, in their order, and what people call them."""
HIGHER_IS_BETTER = {
    "dice": True,
    "jaccard": True,
    "hd95_mm": False,
    "asd_mm": False,
    "assd_mm": False,
    "nsd": True,
}

RULES = {
    "both_empty": "Truth and prediction empty: Dice, Jaccard, NSD and distances are undefined and in no mean; counted "
    "as n_both_empty.",
    "one_empty": "One of the two empty: Dice, Jaccard and NSD are 0, and every distance is the diagonal of the image, "
    "which is longer than any distance in it, so that an empty prediction never improves a mean; counted as "
    "n_empty_predictions and n_empty_truths.",
    "ignore_label": "Voxels with the ignore label in the truth belong to neither mask and do not count; where a mask "
    "meets them it has no surface; distances and NSD are undefined where they hide the whole surface of a mask.",
    "one_slice": "An image of one slice is measured in its plane. Pictures (PNG, BMP, TIFF) have no spacing: distances "
    "and tolerance are in pixels, and there is no volume.",
}
"""For people, in the output and in the help."""
