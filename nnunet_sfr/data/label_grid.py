"""The grid that the label maps of a store fit, and what their values mean; without nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def label_grid(derived_from: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """What a label map on the preprocessed grid depends on.

    Args:
        derived_from: that section of the SFR plan.
        dataset_json: ``dataset.json`` beside the preprocessed cases.
    """
    regions = dataset_json.get("regions_class_order")
    return {**derived_from, "labels": dataset_json["labels"], "regions_class_order": regions}
