"""The grid that the label maps of a store fit, and what their values mean; without nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_sfr.json_files import as_json


def label_grid(derived_from: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """What a label map on the preprocessed grid depends on.

    Args:
        derived_from: that section of the SFR plan.
        dataset_json: ``dataset.json`` beside the preprocessed cases.
    """
    regions = dataset_json.get("regions_class_order")
    return {**derived_from, "labels": dataset_json["labels"], "regions_class_order": regions}


def first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key of a grid that a store has otherwise; None where its labels fit.

    Args:
        found: of the store's manifest.
        wanted: :func:`label_grid` of today.
    """
    # as the manifest has it: lists for tuples
    for key, value in as_json(wanted).items():
        if found.get(key) != value:
            return str(key)
    return None
